package listen

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/address"
	"github.com/coppice-go/coppice/netactor/internal/faults"
	"github.com/coppice-go/coppice/netactor/internal/wire"
	"github.com/coppice-go/coppice/tracing"
)

// directListener is a net.Listener on which this worker accepts itself: its socket is shared with
// other workers, or adopted.
type directListener struct {
	ls          *Listeners
	address     net.Addr
	number      uint64 // 0: the master does not know it
	name        string
	done        func()                 // gives the ordinal back; nil if there is none
	options     netactor.SocketOptions // of connections, where they differ from package net's
	credentials bool                   // the kernel is asked for each client's
	ended       chan struct{}          // closed by close
	outage      faults.Outage          // of accept

	mu      sync.Mutex
	ln      net.Listener
	paused  bool
	broken  bool          // ln does not accept any more; the master will send another
	changed chan struct{} // closed and replaced when ln, paused or broken changes
	closed  bool
	err     error // the error of closing ln
}

func newDirectListener(ls *Listeners, ln net.Listener, addr net.Addr, number uint64, name string) *directListener {
	return &directListener{
		ls: ls, ln: ln, address: addr, number: number, name: name,
		ended: make(chan struct{}), changed: make(chan struct{}),
	}
}

func (l *directListener) dispatched() bool { return false }

// Accept waits for a connection. If the socket is the master's, it also waits while it lacks
// descriptors or a security policy refuses the accept; it logs that as the listener process does.
func (l *directListener) Accept() (net.Conn, error) {
	for {
		l.mu.Lock()
		ln, changed, wait := l.ln, l.changed, l.paused || l.broken
		l.mu.Unlock()
		if wait {
			select {
			case <-changed:
				continue
			case <-l.ended:
			}
		}
		c, err := ln.Accept()
		if err == nil {
			if l.outage.Lasts() {
				l.outage.End(l.ls.cfg.Logger, "listener accepts again", "listener", l.address)
			}
			return l.wrap(c), nil
		}
		switch {
		case l.retryAfter(ln, err):
		case l.number != 0 && mayLast(err):
			pause := l.outage.Begin(l.ls.cfg.Logger, "listener cannot accept: clients wait in the backlog", "listener", l.address, "err", err)
			select {
			case <-time.After(pause):
			case <-l.ended:
			}
		default:
			return nil, err
		}
	}
}

// mayLast reports whether an error of accept may last for a while and has nothing to do with the
// socket.
func mayLast(err error) bool {
	return faults.IsShortage(err) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM)
}

// retryAfter reports whether Accept must try again after err from ln: the listener was paused, or
// its socket does not accept any more and the master replaces it.
func (l *directListener) retryAfter(ln net.Listener, err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return false
	case l.paused || l.ln != ln:
		return true
	case l.number == 0 || !errors.Is(err, syscall.EINVAL):
		return false
	}
	l.broken = true
	l.ls.send(l.ls.cfg.Master, &fdipc.Frame{Kind: wire.KindBroken, Target: l.number, Payload: []byte(err.Error())})
	return true
}

func (l *directListener) changeLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// pause makes Accept wait, or resume.
func (l *directListener) pause(paused bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused = paused
	var at time.Time
	if paused {
		at = time.Unix(1, 0) // an Accept that waits returns from ln and looks again
	}
	if d, ok := l.ln.(interface{ SetDeadline(time.Time) error }); ok {
		_ = d.SetDeadline(at)
	}
	l.changeLocked()
}

// replace takes ownership of another socket for the same listener.
func (l *directListener) replace(ln net.Listener) {
	l.mu.Lock()
	old := l.ln
	if l.closed {
		old = ln
	} else {
		l.ln, l.broken = ln, false
		l.changeLocked()
	}
	paused := l.paused
	l.mu.Unlock()
	go old.Close() // returns when the connections queued in a Unix socket are closed
	if paused {
		l.pause(true)
	}
}

// wrap returns c in a wrapper that counts it, and begins its trace.
func (l *directListener) wrap(c net.Conn) net.Conn {
	if l.options != (netactor.SocketOptions{}) {
		setOptions(c, l.options)
	}
	tracer := l.ls.cfg.Tracer
	r := connRecord{conns: l.ls.conns}
	if l.credentials {
		r.credentials = credentialsOf(c)
	}
	if tracer != nil {
		accepted := tracing.AcceptSpan{Listener: l.name, Transport: l.address.Network()}
		if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
			accepted.Peer = a.AddrPort()
		}
		accept := tracer.Accept(accepted)
		r.span = accept.Serve()
		accept.End()
	}
	return wrap(c, r, nil)
}

// Close closes this process's copy of the socket.
func (l *directListener) Close() error {
	if !l.close(true) {
		return &net.OpError{Op: "close", Net: l.address.Network(), Addr: l.address, Err: net.ErrClosed}
	}
	return l.err
}

func (l *directListener) closedByMaster() { l.close(false) }

func (l *directListener) close(tell bool) (first bool) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false
	}
	l.closed = true
	ln := l.ln
	l.mu.Unlock()
	if tell || !address.IsLocal(l.address.Network()) {
		l.err = ln.Close()
	} else { // in the background, as this is the channel's reader: it returns when the queued connections are closed
		go ln.Close()
	}
	close(l.ended)
	l.ls.forget(l, l.number)
	if l.number != 0 && tell {
		l.ls.reportClosed(l.number)
	}
	if l.done != nil {
		l.done()
	}
	return true
}

// File returns a duplicate of the socket, owned by the caller, as [net.TCPListener.File] does. Its
// O_NONBLOCK is that of the socket, in every process that has it.
func (l *directListener) File() (*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, ok := l.ln.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return f.File()
}

// Addr returns the address that the socket is bound to.
func (l *directListener) Addr() net.Addr { return l.address }
