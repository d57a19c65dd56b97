package coppice

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/listen"
	"github.com/coppice-go/coppice/runtime/internal/child"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/httpdrain"
)

// A Worker is what a [WorkerFunc] knows of itself and may ask of the tree. Its
// methods may be called by any goroutine.
//
// The zero Worker is one without a master, for a unit test of a worker function:
// Listen is net.Listen, Ready does nothing, there is no tree and no configuration.
type Worker struct {
	c *child.Session // nil = no master
}

// ID is the process's number in the tree: 1, 2, 3 and so on, never reused. It is
// the address of the process's actors.
func (w *Worker) ID() int { return w.self().ID }

// Slot is the worker's place in its pool, from 0; a replacement keeps it. It is None in
// Pool.Prepare.
func (w *Worker) Slot() int { return w.self().Slot }

// Generation counts the reloads of the tree, from 1: workers of one generation
// run the same executable with the same configuration.
func (w *Worker) Generation() int { return w.self().Generation }

// Incarnation counts the starts of this slot, from 1.
func (w *Worker) Incarnation() int { return w.self().Incarnation }

// Name is the registered name, for example web/0.
func (w *Worker) Name() string { return w.self().Name }

// Config returns the bytes that Config.Load returned for this generation, shared
// by all callers: do not change them.
func (w *Worker) Config() []byte { return w.self().Config }

func (w *Worker) self() childproto.Hello {
	if w.c == nil {
		return childproto.Hello{Name: "worker"}
	}
	return w.c.Self()
}

// Ready tells the master that the worker does its work: it counts as started,
// and whoever waits for it goes on. Further calls do nothing.
func (w *Worker) Ready() error {
	if w.c == nil {
		return nil
	}
	if err := w.requireSlot("Ready"); err != nil {
		return err
	}
	return w.c.Ready()
}

// CountRequests counts n requests for Recycle.Requests, of work that Serve does not see.
func (w *Worker) CountRequests(n int) {
	if w.c != nil {
		w.c.CountRequests(n)
	}
}

// WorkContext ends when a worker that was asked to stop must have finished, nine
// tenths into its Shutdown time. What serves a request lives under it, not under
// the worker's own context, which ends when the drain begins.
func (w *Worker) WorkContext() context.Context {
	if w.c == nil {
		return context.Background()
	}
	return w.c.DrainContext()
}

// Listen asks the master for a listener, as net.Listen asks the kernel: the master
// opens the socket, or uses the one that another worker has asked for with the
// same network and address. Port 0 is chosen once and then the same for every
// worker. Errors are those of net.Listen: a *net.OpError around EADDRINUSE,
// EACCES, EINVAL. The caller closes the listener; the socket itself lives until
// the pool stops or every live worker has closed it.
func (w *Worker) Listen(network, address string) (net.Listener, error) {
	return w.ListenSpec(context.Background(), ListenerSpec{Network: network, Address: address})
}

// ListenSpec is Listen with a name, a policy, a backlog, or a descriptor of the
// master's: FD 7 is what the *master* has open as 7. ctx ends the wait; a socket that comes
// later is given back. For a listener that has been opened already see [Worker.Listener].
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

// Listener returns the listener of that name: one of the tree ([ListenerSpec],
// [Runtime.AddListener]), or one that another worker has shared ([Worker.Share]). While there is
// none the error wraps ENOENT. The caller closes it, as one of [Worker.Listen].
func (w *Worker) Listener(ctx context.Context, name string) (net.Listener, error) {
	return w.listener(ctx, netactor.Request{Name: name})
}

// AwaitListener is Listener that waits until there is a listener of that name, or ctx ends.
func (w *Worker) AwaitListener(ctx context.Context, name string) (net.Listener, error) {
	return w.listener(ctx, netactor.Request{Name: name, Wait: true})
}

func (w *Worker) listener(ctx context.Context, r netactor.Request) (net.Listener, error) {
	if err := w.mayLookUp(r); err != nil {
		return nil, err
	}
	return w.c.Listeners().Listen(ctx, r)
}

// ListenPacket asks the master for a packet socket, as net.ListenPacket asks the kernel: networks are udp, udp4, udp6
// and unixgram. What [Worker.Listen] says of sharing, of port 0, of errors and of the life of the socket holds here
// too: the workers share the one socket, and each datagram goes to one of those who read.
//
// The result is a *listen.UDPConn, which is a *net.UDPConn in all but Close, or a *listen.UnixgramConn;
// netactor says there what sharing means for options, groups and deadlines. Without a master it is the same over
// net.ListenPacket. The caller closes it, once ctx has ended and what was read is answered; when the worker function
// returns it is closed in any case, and not before: [Worker.Serve] leaves it alone. What nobody has read waits in
// the socket for the other workers, or for the next.
func (w *Worker) ListenPacket(network, address string) (net.PacketConn, error) {
	return w.ListenPacketSpec(context.Background(), ListenerSpec{Network: network, Address: address})
}

// ListenPacketSpec is [Worker.ListenSpec] for packet sockets. With Policy ReusePort each worker reads a socket of its own,
// over which the kernel spreads the clients by a hash of the addresses: datagrams of one client go to one
// worker. The socket is its slot's, and outlives it with what is queued there; in a reload the
// old worker of a slot and the new one share it.
func (w *Worker) ListenPacketSpec(ctx context.Context, l ListenerSpec) (net.PacketConn, error) {
	if err := w.mayListen(l); err != nil {
		return nil, err
	}
	if w.c == nil {
		return listen.New(listen.Config{}).ListenPacket(ctx, l.request())
	}
	return w.c.Listeners().ListenPacket(ctx, l.request())
}

// PacketConn is [Worker.Listener] for packet sockets: it returns that of the ListenerSpec of that
// name, as [Worker.ListenPacket] returns one.
func (w *Worker) PacketConn(ctx context.Context, name string) (net.PacketConn, error) {
	return w.packetConn(ctx, netactor.Request{Name: name})
}

// AwaitPacketConn is PacketConn that waits until there is a packet socket of that name, or ctx
// ends.
func (w *Worker) AwaitPacketConn(ctx context.Context, name string) (net.PacketConn, error) {
	return w.packetConn(ctx, netactor.Request{Name: name, Wait: true})
}

func (w *Worker) packetConn(ctx context.Context, r netactor.Request) (net.PacketConn, error) {
	if err := w.mayLookUp(r); err != nil {
		return nil, err
	}
	return w.c.Listeners().ListenPacket(ctx, r)
}

// mayListen returns what is wrong with asking for l, if anything is.
func (w *Worker) mayListen(l ListenerSpec) error {
	var errs []error
	bad := func(_, field string, value any, why string) {
		errs = append(errs, &InvalidError{"listener " + l.Name, field, value, why})
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
		return &net.OpError{Op: "listen", Net: l.Network, Err: err}
	}
	return nil
}

// mayLookUp returns what is wrong with asking for what has the name in r, if anything is.
func (w *Worker) mayLookUp(r netactor.Request) error {
	var err error
	switch {
	case r.Name == "":
		err = &InvalidError{"listener", "Name", `""`, "is empty"}
	case w.c != nil:
		err = w.requireSlot("Listener")
	default:
		err = fmt.Errorf("%w without a master: a listener by name", ErrUnsupported)
	}
	if err != nil {
		return &net.OpError{Op: "listen", Err: err}
	}
	return nil
}

// requireSlot refuses what needs a slot while the worker has none.
func (w *Worker) requireSlot(op string) error {
	if !w.c.HasSlot() {
		return fmt.Errorf("%w in Pool.Prepare: %s", ErrUnsupported, op)
	}
	return nil
}

// Adopt takes a listener that the worker opened itself into the worker's drain:
// its connections count as the worker's, and it is closed when the worker stops.
// The master is not asked and does not know of it. The result takes ownership of
// ln and is owned by the caller.
func (w *Worker) Adopt(ln net.Listener) net.Listener {
	if w.c == nil {
		return ln
	}
	return w.c.Listeners().Adopt(ln)
}

// Share gives the master a listener that the worker opened itself, to be listened
// on by the whole tree under l.Name and l.Policy: [Worker.Listener].
// It takes ownership of ln, also on an error, and returns the worker's own part of
// what is now shared, owned by the caller. A name that is taken is an error that
// wraps EADDRINUSE.
func (w *Worker) Share(ctx context.Context, l ListenerSpec, ln net.Listener) (net.Listener, error) {
	if w.c == nil {
		return ln, nil
	}
	if err := w.requireSlot("Share"); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return w.c.Listeners().Share(ctx, l.request(), ln)
}

// ReportLoad says how much this worker has to do, for listeners of policy LeastLoaded, in a unit
// of its own choice that is about one connection's worth: the worker with the least gets the
// next connection. Until the next report each connection that comes counts 1 more, and each that ends 1
// less. Without any report the number of connections is compared.
func (w *Worker) ReportLoad(load int) {
	if w.c != nil {
		w.c.Listeners().Report(load)
	}
}

// System is the actor system of this process, made when it is first needed. Its
// actors are reachable from the whole tree by the worker's name and their own:
// an actor spawned as "cache" in web/0 is found by Lookup("web/0/cache"). It is
// nil without a master.
func (w *Worker) System() *actors.System {
	if w.c == nil {
		return nil
	}
	return w.c.System()
}

// Lookup returns the address of whoever holds a registered name when a message
// is sent to it: "master", "web/0", "sessions", "web/1/cache". It does not ask
// whether there is a holder; a message to nobody is a dead letter.
func (w *Worker) Lookup(name string) *actor.PID {
	if w.c == nil {
		return nil
	}
	return w.c.System().Lookup(name)
}

// Tree asks the master for the live tree, by an actor message.
func (w *Worker) Tree(ctx context.Context) (Tree, error) {
	if w.c == nil {
		return Tree{}, fmt.Errorf("%w without a master: Tree", ErrUnsupported)
	}
	return askTree(ctx, w.c.System())
}

// A Server serves a listener until Shutdown: *http.Server is one. Serve returns
// when the listener is closed, which it is before Shutdown is called; Shutdown waits
// for what is under way, and returns early with ctx's error when that ends first.
type Server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

// Serve serves ln with s until ctx ends, then drains: it says Ready, runs s.Serve,
// and when the worker is asked to stop closes ln, calls s.Shutdown under
// WorkContext, and waits until s.Serve has returned and every connection of the
// worker is closed, hijacked ones included. What is still open at the drain's
// deadline is cut by s.Close, where s has one, and counted as forced. Serve returns
// nil when it was asked to stop and everything finished, otherwise what went wrong
// first.
//
// With an *http.Server an idle HTTP/1 connection is not closed in its client's
// face: it answers one more request, with "Connection: close". One whose client
// does not ask is closed, and counted as forced: from half of the drain to three
// quarters of it when another worker has taken this one's place, within a twentieth of the drain when
// the pool itself stops, since nobody is there to ask again. HTTP/2 connections get
// GOAWAY as the drain begins, with TLS and without, and finish what they are at. What
// should end a hijacked connection, a WebSocket say, is ctx; functions of
// RegisterOnShutdown run only when the HTTP/1 connections are gone.
//
// While it serves, Serve sets Handler, ConnState, ConnContext and TLSNextProto of an *http.Server
// to its own, which call the user's; when it has returned they are the user's again, unless
// connections had to be left open or cut. One without a ConnContext gets one that continues each
// connection's trace in its requests' contexts. A server may serve several
// listeners, each by a Serve of its own. For TLS call [Worker.ServeTLS]; another Server than http's
// is given a [crypto/tls.NewListener] over ln.
func (w *Worker) Serve(ctx context.Context, ln net.Listener, s Server) error {
	return w.serve(ctx, ln, s, nil)
}

// serve is Serve, with the TLS configuration of an http.Server, or nil for its own.
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
		drain.Begin()
	}
	_ = ln.Close() // refuse what is new, also of an s that has not begun to serve; a second Close, by the user or by s, is harmless
	if drain != nil {
		err := ended(<-served) // every connection that was accepted is known to drain from here on
		w.c.CloseIdle(drain)
		served <- err
	}
	err := ended(s.Shutdown(w.WorkContext())) // it may find ln closed
	if err == nil && w.c != nil {
		_ = w.c.Listeners().Drain(w.WorkContext()) // the hijacked ones; how many are cut is counted at the end
		if drain != nil {
			drain.AwaitConns(w.WorkContext()) // Shutdown knew of their end before they did
		}
	}
	late := w.WorkContext().Err() != nil
	if err != nil && !late && w.c != nil {
		w.c.CountOpenForced() // it has not waited
	}
	if err != nil || late {
		err = errors.Join(err, cut(s, ln))
	}
	if err != nil {
		err = fmt.Errorf("coppice: drain: %w", err)
	}
	return errors.Join(err, ended(<-served))
}

// ServeTLS is [Worker.Serve] over TLS: what ln accepts is served with a copy of s.TLSConfig, which
// must have a certificate, and which gets the session ticket keys of the pool
// ([Worker.ShareTickets]): a client resumes its session with any worker. As with
// http.Server.ServeTLS the copy offers HTTP/2 and HTTP/1.1 where NextProtos is empty, and HTTP/2
// if s serves it. It takes ownership of ln, also on an error. A server is served by one ServeTLS at
// a time.
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

// ended forgives the errors by which a server says that it was asked to stop.
func ended(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
