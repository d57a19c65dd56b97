package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/address"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// pendingListen is what is noted about a request that waits for its reply.
type pendingListen struct {
	network string   // as in the request, for errors
	addr    net.Addr // as resolved, for errors
	done    func()   // gives the ordinal back; may be called more than once
}

// replyFrame makes the listener of a reply. It does so here, and not in Listen, so that the
// master's next frames find it. lost reports whether the reply's socket did not arrive.
func (ls *Listeners) replyFrame(f *fdipc.Frame, lost bool) {
	var r wire.ListenReply
	if err := wire.Decode(f.Payload, &r); err != nil {
		r = wire.Failed(err)
	}
	var h *fdipc.Handle
	if len(f.Handles) > 0 {
		h = f.Handles[0]
	}
	call := ls.requests.Take(f.Target)
	if call == nil { // Listen gave up; the master has KindGiveUp or will get it (N104)
		if h != nil {
			_ = h.Close()
		}
		return
	}
	a := call.About
	var s openSocket
	err := r.Err(a.network, a.addr)
	if err == nil && lost {
		err = address.ListenError(a.network, a.addr, os.NewSyscallError("recvmsg", syscall.EMFILE))
	}
	if err == nil {
		s, err = ls.makeSocket(r, h, a.done)
	}
	if err != nil {
		ls.discard(r, h)
		a.done() // a failed listen leaves no trace (N87)
	}
	call.Finish(s, err)
}

// discard gives back a listener that could not be made.
func (ls *Listeners) discard(r wire.ListenReply, h *fdipc.Handle) {
	if h != nil {
		_ = h.Close()
	}
	if r.Errno == 0 {
		ls.reportClosed(r.Number)
	}
}

// Listen opens a listener, or shares one that is open. It looks names up; the master opens the
// socket. It waits for the name server and for the master until ctx ends. A socket that the master
// opens after that is closed. Errors are those of net.Listen. The caller, or Drain, closes the
// listener.
func (ls *Listeners) Listen(ctx context.Context, r netactor.Request) (net.Listener, error) {
	if ls.cfg.Master == nil {
		return ls.listenAlone(ctx, r)
	}
	if address.IsPacket(r.Network) {
		return nil, wrongKind(ctx, r)
	}
	s, err := ls.ask(ctx, r, nil)
	if err != nil {
		return nil, err
	}
	return s.(net.Listener), nil
}

// wrongKind returns the error of a Listen for datagrams, or of a ListenPacket for connections, as
// package net has it.
func wrongKind(ctx context.Context, asked netactor.Request) error {
	r, err := wire.Resolve(ctx, asked)
	if err != nil {
		return err
	}
	addr, _ := address.Parse(r.Network, r.Address)
	use := "Listen"
	if address.IsPacket(asked.Network) {
		use = "ListenPacket"
	}
	return address.ListenError(asked.Network, addr, &net.AddrError{Err: "unexpected address type: " + asked.Network + " is for " + use, Addr: asked.Address})
}

// Share gives the master a listening socket that this worker has opened, under r.Name, so that
// other workers can listen on it by name or address. r.Policy and r.Limits apply to its
// connections. Share takes ownership of ln, also on an error, and returns this worker's part of it.
// The error for a taken name is EADDRINUSE. Without a master Share is Adopt.
func (ls *Listeners) Share(ctx context.Context, r netactor.Request, ln net.Listener) (net.Listener, error) {
	if ls.cfg.Master == nil {
		return ls.Adopt(ln), nil
	}
	u, isUnix := ln.(*net.UnixListener)
	if isUnix {
		u.SetUnlinkOnClose(false) // if the master takes the socket, it owns the path
	}
	h, err := fdipc.HandleOf(ln)
	if err != nil {
		_ = ln.Close()
		return nil, address.ListenError(ln.Addr().Network(), ln.Addr(), err)
	}
	a := ln.Addr()
	r.FD, r.Network, r.Address = 0, a.Network(), a.String()
	s, err := ls.ask(ctx, r, h)
	if err != nil {
		if _, refused := errors.AsType[syscall.Errno](err); refused && isUnix && filepath.IsAbs(a.String()) {
			_ = syscall.Unlink(a.String()) // as its Close would; the master does not touch a socket that it did not take
		}
		return nil, err
	}
	return s.(net.Listener), nil
}

// listenAlone is Listen without a master, as in a test of a worker's function.
func (ls *Listeners) listenAlone(ctx context.Context, r netactor.Request) (net.Listener, error) {
	if err := r.Validate(); err != nil {
		return nil, address.ListenError(r.Network, nil, err)
	}
	if r.Network == "" {
		return nil, address.ListenError(r.Network, nil, os.NewSyscallError("listen", syscall.ENOENT))
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, r.Network, r.Address)
	if err != nil {
		return nil, err
	}
	return ls.Adopt(ln), nil
}

// ask sends a request and returns the listener, or packet socket, of the reply. h is a socket to
// send with it, or nil; it is consumed.
func (ls *Listeners) ask(ctx context.Context, asked netactor.Request, h *fdipc.Handle) (openSocket, error) {
	sent := false
	defer func() {
		if h != nil && !sent {
			_ = h.Close()
		}
	}()
	r, err := wire.Resolve(ctx, asked)
	if err != nil {
		return nil, err
	}
	addr, _ := address.Parse(r.Network, r.Address)        // none for a name alone
	if n := len(wire.Encode(r)); n > wire.MaxControl-64 { // the ordinal is added below
		return nil, address.ListenError(asked.Network, nil, fmt.Errorf("netactor: a request of %d bytes is longer than %d: its Limits.Answer, or the path of its pool", n, wire.MaxControl))
	}
	base := wire.Key(r)
	r.Ordinal = ls.takeOrdinal(base)
	done := sync.OnceFunc(func() { ls.giveOrdinal(base, r.Ordinal) })
	call, err := ls.requests.Begin(pendingListen{network: asked.Network, addr: addr, done: done})
	if err != nil {
		done()
		return nil, address.ListenError(asked.Network, addr, err)
	}
	ls.closes.flush()
	f := &fdipc.Frame{Kind: wire.KindListen, Target: call.ID, Payload: wire.Encode(r)}
	if h != nil {
		f.Kind, f.Handles = wire.KindShare, []*fdipc.Handle{h}
	}
	if err = ls.cfg.Master.Send(ctx, f); err == nil {
		sent = true
		select {
		case <-call.Done():
			return call.Result()
		case <-ctx.Done():
			err = ctx.Err()
		case <-ls.cfg.Master.Done():
			err = fdipc.ErrPeerLost
		}
	}
	if call.Cancel() {
		ls.sendKind(ls.cfg.Master, wire.KindGiveUp, call.ID)
	} else { // the reply has just come
		<-call.Done()
		if s, _ := call.Result(); s != nil {
			_ = s.Close()
		}
	}
	done()
	return nil, address.ListenError(asked.Network, addr, err)
}

// makeSocket makes the listener of a reply; h is the socket that came with it, or nil. On an error
// the caller still owns both.
func (ls *Listeners) makeSocket(r wire.ListenReply, h *fdipc.Handle, done func()) (s openSocket, err error) {
	addr, err := r.Addr()
	if err != nil {
		return nil, err
	}
	switch {
	case r.Policy.Dispatched():
		l := newQueuedListener(ls, r, addr, done)
		if l.park > 0 {
			time.AfterFunc(sweepEvery(l.park), l.parkSweep)
		}
		s = l
	case h == nil:
		return nil, errors.New("netactor: listen: reply without a socket")
	case address.IsPacket(r.Network):
		pc, err := h.PacketConn()
		if err != nil {
			return nil, fmt.Errorf("netactor: listen: %w", err)
		}
		s = &packetSocket{ls: ls, pc: pc, addr: addr, number: r.Number, done: done}
	default:
		ln, err := h.Listener()
		if err != nil {
			return nil, fmt.Errorf("netactor: listen: %w", err)
		}
		o := newDirectListener(ls, ln, addr, r.Number, r.Name)
		o.done, o.options, o.credentials = done, r.Options, r.Credentials
		if r.Paused {
			o.pause(true)
		}
		s = o
	}
	ls.mu.Lock()
	if ls.closed {
		ls.mu.Unlock()
		s.closedByMaster()
		return nil, address.ListenError(addr.Network(), addr, net.ErrClosed)
	}
	ls.byNumber[r.Number] = s
	links, t := slices.Clone(ls.links), ls.reporterLocked(r.Number)
	ls.mu.Unlock()
	if n := len(links) - 1; s.dispatched() && n >= 0 {
		for _, link := range links[:n] { // one that retires may have connections left that no worker takes
			ls.send(link, &fdipc.Frame{Kind: wire.KindJoin, Target: r.Number, Payload: wire.Count(0)})
		}
		t.join(links[n])
	}
	return s, nil
}

// takeOrdinal returns the lowest number that no listener of this worker has for the same key.
func (ls *Listeners) takeOrdinal(key string) int {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	used := ls.ordinals[key]
	if used == nil {
		used = make(map[int]bool)
		ls.ordinals[key] = used
	}
	n := 0
	for used[n] {
		n++
	}
	used[n] = true
	return n
}

func (ls *Listeners) giveOrdinal(key string, n int) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	delete(ls.ordinals[key], n)
	if len(ls.ordinals[key]) == 0 {
		delete(ls.ordinals, key)
	}
}
