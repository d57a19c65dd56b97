// Package coppice runs a service as a supervised tree of processes.
//
// The shortest program is four supervised workers on one port:
//
//	func main() {
//		coppice.Serve(4, func(ctx context.Context, w *coppice.Worker) error {
//			ln, err := w.Listen("tcp", ":8000") // asks the master, as in Node's cluster
//			if err != nil {
//				return err
//			}
//			return w.Serve(ctx, ln, &http.Server{Handler: mux}) // ready, serve, drain
//		})
//	}
//
// A larger one calls [Run] with a [Config] whose Children are specs: [Pool],
// [Func], [Actor], [Process], [Supervisor], [ListenerSpec]. [Main] is Run and the end of the
// program. A program that has a life of its own calls [Start], goes on, and calls
// [Runtime.Shutdown].
//
// # The tree
//
//	master                 the program that called Main: root supervisor, holds every listening socket
//	├── listeners          a supervisor with a budget of its own
//	│   └── listener       a process that accepts and hands over; runs no user code
//	├── web                a Pool: a supervisor over processes
//	│   ├── web/0          a Worker: a process with its own actor system
//	│   └── web/1
//	└── sessions           an Actor in the master
//
// Supervision follows Erlang/OTP: see package supervisor. Actors are
// protoactor-go's: see package actors. A process has an ID (1, 2, 3 …, never
// reused), which is the address of its actors, and a registered name such as
// web/0, which its replacement takes over.
//
// # What runs where
//
// A child is the same executable started again with the same arguments and
// environment. So what stands before Main, Run or Start runs in every process;
// open databases in the worker function, not in main. In a child none of the
// three returns: it finds its part of the Config by its path in the tree, lives
// it, and exits. A child whose tree is not its master's is not started, and the
// error names the difference. [IsChild] tells which is which.
//
// Each process starts with exactly what its [Environment] gives it: variables,
// files, limits, a user. docs/processes.md has the table, and the steps of a stop.
//
// Standard input is the null device. What a child prints reaches
// Config.Output line by line, behind its name. How it ended is an [Exit] in its
// exit reason; a crash is a [CrashReport] for Hooks.Crash. Each child leads a process group
// of its own, so that a Ctrl-C at the terminal is the master's alone.
//
// # A worker's duties, in order
//
//  1. Listen, or take up whatever work it has.
//  2. Call [Worker.Ready] ([Worker.Serve] does), within Pool.StartTimeout.
//  3. When its context ends, refuse new work, finish what it has begun by the
//     end of [Worker.WorkContext], and return.
//
// # Guarantees
//
// A socket that a worker asked for belongs to its pool, not to the worker: it is
// closed when the pool is stopped, or when every live worker has closed it. A
// death is not a close, nor is what a worker closes as it fails, by a deferred ln.Close
// say: less than a quarter of a second before it is gone, or has returned to be
// restarted. Cleaning up that takes longer belongs before the close. So while every worker is
// dead clients wait in the kernel's backlog, and nobody is refused. With [RoundRobin] a
// connection that no worker has claimed (Accept has not returned it) is never lost by a
// worker's death, and none is served twice; one that was claimed dies with its worker.
// With [Shared] what a worker's kernel queue had given it dies with it.
//
// With [Hash] the connections of one client address have one worker; with a [Peek] those of one TLS
// server name, cookie, or beginning. They are looked at in the listener process, and the worker reads every
// byte. Behind a load balancer that writes a PROXY header the worker takes it off, with a listener around
// the one it was given: examples/proxy.
//
// [SocketOptions] of a listener hold for what workers accept, under each policy.
//
// A packet socket ([Worker.ListenPacket]) belongs to its pool in the same way. Nobody hands datagrams over: each goes
// to the worker that reads first, and one that was read dies with its worker. What is queued in the socket is
// there for the others, or for the replacement, as far as the kernel has room for it.
//
// Less formally: kill -9 of a worker costs the requests that it was answering.
// Kill of the listener process costs at most the connections that it holds at
// that moment and that no worker has claimed.
//
// A worker that hangs is found by its [Liveness] and replaced, and so is a
// listener process: one that is stopped (SIGSTOP) holds up the dispatched
// listeners for 3 s.
//
// No process outlives its master for longer than Config.OrphanDrain, but for one
// that is stopped (SIGSTOP) until it is continued. Processes are known by pidfd,
// never by number alone.
//
// # Limits
//
// Processes need Linux. Elsewhere workers are goroutines of the master
// ([GoroutineIsolation]). One tree runs in a program at a time. A reload replaces
// workers and the listener process; what runs in the master stays as it is.
package coppice
