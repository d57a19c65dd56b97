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
// A larger program calls [Run] with a [Config] whose Children are specs: [Pool], [Func], [Actor],
// [Process], [Supervisor], [ListenerSpec]. [Main] calls Run and then ends the program. A program
// that does more than run a tree calls [Start] and, when it ends, [Runtime.Shutdown].
//
// # The tree
//
//	master                 the program that called Main: root supervisor, has all listening sockets
//	├── listeners          a supervisor with its own restart budget
//	│   └── listener       a process that accepts and hands over; runs no user code
//	├── web                a Pool: a supervisor over processes
//	│   ├── web/0          a Worker: a process with its own actor system
//	│   └── web/1
//	└── sessions           an Actor in the master
//
// Supervision follows Erlang/OTP: see package supervisor. Actors are protoactor-go's: see package
// actors. A process has an ID (1, 2, 3 …, never reused), which is the address of its actors, and a
// registered name such as web/0, which its replacement takes over.
//
// # What runs where
//
// A child is the same executable started again with the same arguments and environment. So the code
// before Main, Run or Start runs in every process; open databases in the worker function, not in
// main. In a child these three functions do not return: the child finds its part of the Config by
// its path in the tree, runs it, and exits. A worker of a pool that was added at run time
// ([Runtime.StartChild]) finds its function by name ([RegisterFunction]). A child whose tree
// differs from its master's is not started; the error names the difference. [IsChild] reports
// whether a process is a child.
//
// Each process starts with exactly what its [Environment] gives it: variables,
// files, limits, a user. docs/processes.md has the table, and the steps of a stop.
//
// Standard input is the null device. A child's output reaches Config.Output line by line, each line
// behind the child's name. The exit reason of a process holds an [Exit], which describes how it
// ended; Hooks.Crash also gets a [CrashReport] of a crash. Each child leads its own process group,
// so that a Ctrl-C at the terminal reaches only the master.
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
// A socket that a worker asked for belongs to its pool, not to the worker. It is closed when the
// pool is stopped, or when every live worker has closed it. A worker that dies does not close its
// sockets. Neither does a deferred ln.Close in a worker that fails: a close does not count if the
// process ends, or returns to be restarted, less than a quarter of a second later. Cleaning up that
// takes longer belongs before the close. So while every worker is dead, clients wait in the
// kernel's backlog and none is refused. With [RoundRobin] a worker's death never loses a connection
// that no worker has claimed (Accept has not returned it), and no connection is served twice. A
// claimed connection dies with its worker. With [Shared] the connections that the kernel's queue
// has given to a worker die with it.
//
// With [Hash] one worker gets all connections of a client address; with a [Peek], all connections
// of a TLS server name, of a cookie, or with the same beginning. The listener process looks at the
// beginning, and the worker still reads every byte. Behind a load balancer that writes a PROXY
// header, the worker removes the header with a listener around the one that it was given:
// examples/gateway.
//
// [SocketOptions] of a listener apply to the connections that workers accept, under each policy.
//
// A packet socket ([Worker.ListenPacket]) belongs to its pool in the same way. No process hands
// datagrams over: each datagram goes to the worker that reads first, and a datagram that was read
// dies with its worker. Datagrams in the socket's queue stay there for the other workers or for the
// replacement, as far as the kernel has room.
//
// Less formally: a kill -9 of a worker costs the requests that it was answering. A kill of the
// listener process costs at most the connections that it holds at that moment and that no worker
// has claimed.
//
// [Liveness] finds a worker that hangs, and the master replaces it. A listener process that hangs
// is replaced too: if it is stopped (SIGSTOP), it holds up the dispatched listeners for 3 s.
//
// No process outlives its master by more than Config.OrphanDrain, except a stopped process
// (SIGSTOP), until it is continued. Processes are known by pidfd, never by number alone.
//
// # Limits
//
// Processes need Linux. On other systems workers are goroutines of the master
// ([GoroutineIsolation]). A program runs one tree at a time. A reload replaces workers and the
// listener process; what runs in the master stays as it is.
package coppice
