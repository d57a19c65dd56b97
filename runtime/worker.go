package coppice

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/listen"
	"github.com/coppice-go/coppice/runtime/internal/child"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/httpdrain"
)

// A Worker is what a [WorkerFunc] uses to identify itself and to ask the tree. Its methods may be
// called by any goroutine.
//
// The zero Worker is a Worker without a master, for a unit test of a worker function: Listen is
// net.Listen, Ready does nothing, System is an actor system of its own, in which the test can spawn
// the actors that the worker asks, and there is no tree and no configuration. runtimetest.Worker
// gives a worker function these too.
type Worker struct {
	c     *child.Session // nil = no master
	alone alone          // what it has instead
	asked atomic.Bool    // the master for a socket
}

// ID returns the process's number in the tree: 1, 2, 3 and so on, never reused. It is the address
// of the process's actors, in a cluster ([Config].Hosts) behind the boot of the host.
func (w *Worker) ID() int { return w.self().ID }

// Slot returns the worker's place in its pool, from 0; a replacement gets the same slot. It is None
// in Pool.Prepare.
func (w *Worker) Slot() int { return w.self().Slot }

// Generation returns the number of the worker's generation. It counts the reloads of the tree, from
// 1: workers of one generation run the same executable with the same configuration.
func (w *Worker) Generation() int { return w.self().Generation }

// Incarnation returns how many workers this slot has had, this one included.
func (w *Worker) Incarnation() int { return w.self().Incarnation }

// Name returns the registered name, for example web/0.
func (w *Worker) Name() string { return w.self().Name }

// Config returns the bytes that Config.Load returned for this generation. All callers share them:
// do not change them.
func (w *Worker) Config() []byte {
	if w.c == nil {
		w.alone.noConfig()
	}
	return w.self().Config
}

func (w *Worker) self() childproto.Hello {
	if w.c == nil {
		return childproto.Hello{Name: "worker"}
	}
	return w.c.Self()
}

// Ready tells the master that the worker does its work. The worker then counts as started, and
// calls that wait for its start go on. Further calls do nothing.
func (w *Worker) Ready() error {
	if w.c == nil {
		return nil
	}
	if err := w.requireSlot("Ready"); err != nil {
		return err
	}
	return w.c.Ready()
}

// CountRequests counts n requests for Recycle.Requests that Serve does not see.
func (w *Worker) CountRequests(n int) {
	if w.c != nil {
		w.c.CountRequests(n)
	}
}

// Report counts what the program itself finds good and bad: answers, jobs, checks of its results. A
// reload with a Pool.Canary compares the share of bad ones with that of the generation before. It
// costs no allocation and no system call; without a Canary it does nothing.
func (w *Worker) Report(good, bad int) {
	if w.c != nil {
		w.c.Report(good, bad)
	}
}

// WorkContext returns a context that ends when a worker that was asked to stop must have finished,
// nine tenths into its Shutdown time. Requests are served under it, not under the worker's own
// context, which ends when the drain begins.
func (w *Worker) WorkContext() context.Context {
	if w.c == nil {
		return context.Background()
	}
	return w.c.DrainContext()
}

// Listen asks the master for a listener, as net.Listen asks the kernel. The master opens the
// socket, or uses the socket that another worker has asked for with the same network and address.
// The port for port 0 is chosen once and is then the same for every worker of the pool; with a
// name, for all that give the same name. Errors are those of net.Listen: a *net.OpError around
// EADDRINUSE, EACCES, EINVAL. The caller closes the listener; the socket itself lives until the
// pool ends and is not started again, or every live worker has closed it.
// Its connections have every method of *net.TCPConn, or *net.UnixConn; for the type itself see
// [TCPConn].
func (w *Worker) Listen(network, address string) (net.Listener, error) {
	return w.ListenSpec(context.Background(), ListenerSpec{Network: network, Address: address})
}

// ListenSpec is Listen with a name, a policy, a backlog, or a descriptor of the master: FD 7 is
// what the *master* has open as 7. ctx ends the wait; a socket that arrives later is given back.
// For a listener that is already open see [Worker.Listener].
func (w *Worker) ListenSpec(ctx context.Context, l ListenerSpec) (net.Listener, error) {
	if err := w.mayListen(l); err != nil {
		return nil, err
	}
	if w.c == nil {
		var lc net.ListenConfig
		return lc.Listen(ctx, l.Network, l.Address)
	}
	return w.c.Listeners().Listen(ctx, l.request())
}

// Listener returns the listener of that name: a listener of the tree ([ListenerSpec],
// [Runtime.StartChild]), or one that another worker has shared ([Worker.Share]). If there is none,
// the error wraps ENOENT. The caller closes it, like the result of [Worker.Listen].
func (w *Worker) Listener(ctx context.Context, name string) (net.Listener, error) {
	return w.listener(ctx, netactor.Request{Name: name})
}

// AwaitListener is Listener, but waits until there is a listener of that name or ctx ends.
func (w *Worker) AwaitListener(ctx context.Context, name string) (net.Listener, error) {
	return w.listener(ctx, netactor.Request{Name: name, Wait: true})
}

func (w *Worker) listener(ctx context.Context, r netactor.Request) (net.Listener, error) {
	if err := w.mayLookUp(r); err != nil {
		return nil, err
	}
	return w.c.Listeners().Listen(ctx, r)
}

// ListenPacket asks the master for a packet socket, as net.ListenPacket asks the kernel. Networks
// are udp, udp4, udp6 and unixgram. Sharing, port 0, errors and the life of the socket are as with
// [Worker.Listen]: the workers share the one socket, and each datagram goes to one of the workers
// that read.
//
// The result is a *listen.UDPConn, which is a *net.UDPConn in all but Close, or a
// *listen.UnixgramConn; their documentation describes what sharing means for options, groups and
// deadlines. Without a master it is the same over net.ListenPacket. The caller closes it after ctx
// has ended and the datagrams that it read are answered. When the worker function returns it is
// closed in any case, but not earlier: [Worker.Serve] does not close it. Unread datagrams wait in
// the socket for the other workers, or for the next worker.
func (w *Worker) ListenPacket(network, address string) (net.PacketConn, error) {
	return w.ListenPacketSpec(context.Background(), ListenerSpec{Network: network, Address: address})
}

// ListenPacketSpec is [Worker.ListenSpec] for packet sockets. With policy ReusePort each worker
// reads a separate socket, and the kernel spreads the clients over the sockets by a hash of the
// addresses: datagrams of one client go to one worker. The socket belongs to the slot, and outlives
// the worker together with its queue; in a reload the old worker of a slot and the new worker share
// it.
func (w *Worker) ListenPacketSpec(ctx context.Context, l ListenerSpec) (net.PacketConn, error) {
	if err := w.mayListen(l); err != nil {
		return nil, err
	}
	if w.c == nil {
		return listen.New(listen.Config{}).ListenPacket(ctx, l.request())
	}
	return w.c.Listeners().ListenPacket(ctx, l.request())
}

// PacketConn is [Worker.Listener] for packet sockets: it returns the socket of the ListenerSpec of
// that name, in the form that [Worker.ListenPacket] returns.
func (w *Worker) PacketConn(ctx context.Context, name string) (net.PacketConn, error) {
	return w.packetConn(ctx, netactor.Request{Name: name})
}

// AwaitPacketConn is PacketConn, but waits until there is a packet socket of that name or ctx ends.
func (w *Worker) AwaitPacketConn(ctx context.Context, name string) (net.PacketConn, error) {
	return w.packetConn(ctx, netactor.Request{Name: name, Wait: true})
}

func (w *Worker) packetConn(ctx context.Context, r netactor.Request) (net.PacketConn, error) {
	if err := w.mayLookUp(r); err != nil {
		return nil, err
	}
	return w.c.Listeners().ListenPacket(ctx, r)
}

// explain returns the error of the worker function, which says more if the function has opened a
// socket by itself that another worker has.
func (w *Worker) explain(err error) error {
	if errors.Is(err, syscall.EADDRINUSE) && !w.asked.Load() {
		return fmt.Errorf("%w; workers share what Worker.Listen opens, not what net.Listen or ListenAndServe does", err)
	}
	return err
}

// mayListen returns an error if the worker may not ask for l.
func (w *Worker) mayListen(l ListenerSpec) error {
	w.asked.Store(true)
	var errs []error
	bad := func(_, field string, value any, why string) {
		errs = append(errs, &textError{fmt.Sprintf("%s %v: %s", field, value, why), &InvalidError{"listener " + l.Name, field, value, why}})
	}
	l.validate(bad, "")
	if l.SystemdName != "" {
		bad("", "SystemdName", l.SystemdName, "stands in the tree only: ask for its listener by name")
	}
	if l.hasFunctions() {
		bad("", "Hooks", "func", "stand in the tree only, functions are not sent: ask for its listener by name")
	}
	err := errors.Join(errs...)
	switch {
	case err != nil:
	case w.c != nil:
		err = w.requireSlot("Listen")
	case l.FD != 0:
		err = fmt.Errorf("%w without a master: a listener by number", ErrUnsupported)
	}
	if err != nil {
		return listenRefused(l.Network, err)
	}
	return nil
}

// listenRefused returns err, which may be several, in the form of net.Listen.
func listenRefused(network string, err error) error {
	return &net.OpError{Op: "listen", Net: network, Err: &textError{strings.ReplaceAll(withoutPrefix(err), "\n", "; "), err}}
}

// mayLookUp returns an error if the worker may not ask for the name in r.
func (w *Worker) mayLookUp(r netactor.Request) error {
	w.asked.Store(true)
	var err error
	switch {
	case r.Name == "":
		err = &textError{"Name is empty", &InvalidError{"listener", "Name", `""`, "is empty"}}
	case w.c != nil:
		err = w.requireSlot("Listener")
	default:
		err = fmt.Errorf("%w without a master: a listener by name", ErrUnsupported)
	}
	if err != nil {
		return listenRefused("", err)
	}
	return nil
}

// requireSlot returns an error while the worker has no slot.
func (w *Worker) requireSlot(op string) error {
	if !w.c.HasSlot() {
		return fmt.Errorf("%w in Pool.Prepare: %s", ErrUnsupported, op)
	}
	return nil
}

// Adopt adds a listener that the worker opened itself to the worker's drain: its connections count
// as the worker's, and it is closed when the worker stops. The master does not know of it. Adopt
// takes ownership of ln; the caller owns the result.
func (w *Worker) Adopt(ln net.Listener) net.Listener {
	if w.c == nil {
		return ln
	}
	return w.c.Listeners().Adopt(ln)
}

// Share gives the master a listener that the worker opened itself. The whole tree can then listen
// on it under l.Name and l.Policy; see [Worker.Listener]. Share takes ownership of ln, also on an
// error, and returns the worker's own part of the shared listener, owned by the caller. If the name
// is taken, the error wraps EADDRINUSE.
func (w *Worker) Share(ctx context.Context, l ListenerSpec, ln net.Listener) (net.Listener, error) {
	if w.c == nil {
		return ln, nil
	}
	if err := w.requireSlot("Share"); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return w.c.Listeners().Share(ctx, l.request(), ln)
}

// ReportLoad reports how much work this worker has, for listeners of policy LeastLoaded. The unit
// is free, but about the work of one connection: the worker with the least load gets the next
// connection. Until the next report each new connection adds 1, and each that ends subtracts 1. If
// no worker reports, the numbers of connections are compared.
func (w *Worker) ReportLoad(load int) {
	if w.c != nil {
		w.c.Listeners().Report(load)
	}
}

// System returns the actor system of this process, which is made when it is first needed. The whole
// tree can reach its actors by the worker's name and their own: an actor spawned as "cache" in
// web/0 is found by Lookup("web/0/cache").
func (w *Worker) System() *actors.System {
	if w.c == nil {
		return w.alone.actorSystem()
	}
	return w.c.System()
}

// Lookup returns an address for a registered name: "master", "web/0", "sessions", "web/1/cache". A
// message to it goes to the process or actor that has the name when the message is sent. Lookup
// does not check that the name is taken; a message to a name that is not taken is a dead letter.
func (w *Worker) Lookup(name string) *actor.PID { return w.System().Lookup(name) }

// Tree asks the master for the live tree, by an actor message.
func (w *Worker) Tree(ctx context.Context) (Tree, error) {
	if w.c == nil {
		return Tree{}, fmt.Errorf("%w without a master: Tree", ErrUnsupported)
	}
	return askTree(ctx, w.c.System())
}

// A Server serves a listener until Shutdown; *http.Server is a Server. Serve returns when the
// listener is closed, which happens before Shutdown is called. Shutdown waits for the requests
// under way; if its ctx ends first, it returns early with ctx's error.
type Server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

// Serve serves ln with s until ctx ends, then drains. It calls Ready and runs s.Serve. When the
// worker is asked to stop, it closes ln, calls s.Shutdown under WorkContext, and waits until
// s.Serve has returned and every connection of the worker is closed, hijacked connections included.
// At the drain's deadline the connections that are still open are cut by s.Close, if s has it, and
// counted as forced. Serve returns nil when it was asked to stop and everything finished, otherwise
// the first error.
//
// With an *http.Server an idle HTTP/1 connection is not closed while its client may be about to
// send a request: it answers one more request, with "Connection: close". If its client sends none,
// the connection is closed and counted as forced. That happens from half of the drain to three
// quarters of it when another worker has taken this worker's place, and within a twentieth of the
// drain when the pool itself stops, because then no worker is left to ask again; such a one is not
// counted. HTTP/2 connections get GOAWAY when the drain begins, with TLS and without, and finish
// their requests. End a hijacked connection, such as a WebSocket, when ctx ends; functions of
// RegisterOnShutdown run only when the HTTP/1 connections are gone.
//
// While it serves, Serve sets Handler, ConnState, ConnContext and TLSNextProto of an *http.Server
// to its own, which call the user's. When it returns it restores the user's, unless connections had
// to be left open or cut. If the user has no ConnContext, Serve's continues each connection's trace
// in the contexts of its requests. A server may serve several listeners, each by a separate call of
// Serve. For TLS call [Worker.ServeTLS]; for a Server other than http's pass a
// [crypto/tls.NewListener] over ln.
func (w *Worker) Serve(ctx context.Context, ln net.Listener, s Server) error {
	return w.serve(ctx, ln, s, nil)
}

// serve is Serve with conf as the TLS configuration of an http.Server; nil = the server's own.
func (w *Worker) serve(ctx context.Context, ln net.Listener, s Server, conf *tls.Config) error {
	var drain *httpdrain.Drain
	if hs, ok := s.(*http.Server); ok && w.c != nil {
		drain = w.c.DrainOf(hs, conf)
		defer w.c.EndDrainOf(hs, drain)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }() // ends with s.Shutdown or s.Close, awaited below
	if err := w.Ready(); err != nil {
		return errors.Join(err, cut(s, ln), ended(<-served))
	}
	select {
	case err := <-served:
		return ended(err)
	case <-ctx.Done():
	}
	if drain != nil {
		drain.Begin(w.c.Listeners().Parks())
	}
	_ = ln.Close() // refuses new connections, also for an s that has not begun to serve; a second Close, by the user or by s, is harmless
	if drain != nil {
		err := ended(<-served) // every accepted connection is known to drain from now on
		w.c.CloseIdle(drain)
		served <- err
	}
	err := ended(s.Shutdown(w.WorkContext())) // it may find ln closed
	if err == nil && w.c != nil {
		_ = w.c.Listeners().Drain(w.WorkContext()) // waits for the hijacked connections; those that are cut are counted at the end
		if drain != nil {
			drain.AwaitConns(w.WorkContext()) // Shutdown saw the connections end before drain did
		}
	}
	late := w.WorkContext().Err() != nil
	if err != nil && !late && w.c != nil {
		w.c.CountOpenForced() // s has not waited
	}
	if err != nil || late {
		err = errors.Join(err, cut(s, ln))
	}
	if err != nil {
		err = fmt.Errorf("coppice: drain: %w", err)
	}
	return errors.Join(err, ended(<-served))
}

// ServeTLS is [Worker.Serve] over TLS. It serves the connections that ln accepts with a copy of
// s.TLSConfig, which must have a certificate. The copy gets the session ticket keys of the pool
// ([Worker.ShareTickets]), so that a client resumes its session with any worker. As with
// http.Server.ServeTLS the copy offers HTTP/2 and HTTP/1.1 if NextProtos is empty, and HTTP/2 if s
// serves it. ServeTLS takes ownership of ln, also on an error. A server may be in one ServeTLS at a
// time.
func (w *Worker) ServeTLS(ctx context.Context, ln net.Listener, s *http.Server) error {
	cfg := s.TLSConfig.Clone()
	if cfg == nil || len(cfg.Certificates) == 0 && cfg.GetCertificate == nil && cfg.GetConfigForClient == nil {
		return errors.Join(errors.New("coppice: serve TLS: the server's TLSConfig has no certificate"), ln.Close())
	}
	if len(cfg.NextProtos) == 0 {
		cfg.NextProtos = []string{"http/1.1"}
		if servesHTTP2(s) {
			cfg.NextProtos = []string{"h2", "http/1.1"}
		}
	}
	if err := w.ShareTickets(ctx, cfg); err != nil {
		return errors.Join(err, ln.Close())
	}
	if w.c == nil {
		was := s.TLSConfig
		s.TLSConfig = cfg
		defer func() { s.TLSConfig = was }()
	}
	return w.serve(ctx, tls.NewListener(ln, cfg), s, cfg)
}

// servesHTTP2 reports whether s serves HTTP/2 over TLS, by the rules of package http.
func servesHTTP2(s *http.Server) bool {
	if s.Protocols != nil {
		return s.Protocols.HTTP2()
	}
	return s.TLSNextProto == nil || s.TLSNextProto["h2"] != nil
}

// cut ends s at once.
func cut(s Server, ln net.Listener) error {
	if c, ok := s.(interface{ Close() error }); ok {
		return c.Close()
	}
	return ln.Close()
}

// ended returns nil for the errors by which a server reports that it was asked to stop.
func ended(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
