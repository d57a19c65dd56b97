package netactor

import (
	"net"
	"sync"

	"github.com/coppice-go/coppice/tracing"
)

// ownListener is a net.Listener over a socket of this process: shared with
// other workers, or adopted.
type ownListener struct {
	ls      *Listeners
	ln      net.Listener
	address net.Addr
	number  uint64 // 0: the master knows nothing of it
	name    string
	done    func() // gives the ordinal back; nil without

	once sync.Once
	err  error // of the first Close
}

func newOwnListener(ls *Listeners, ln net.Listener, addr net.Addr, number uint64, name string) *ownListener {
	return &ownListener{ls: ls, ln: ln, address: addr, number: number, name: name}
}

func (l *ownListener) joins() bool { return false }

// Accept waits for a connection.
func (l *ownListener) Accept() (net.Conn, error) {
	c, err := l.ln.Accept()
	if err != nil {
		return nil, err
	}
	tracer := l.ls.cfg.Tracer
	s := served{conns: &l.ls.conns}
	if tracer != nil {
		accepted := tracing.Accepted{Listener: l.name, Transport: l.address.Network()}
		if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
			accepted.Peer = a.AddrPort()
		}
		accept := tracer.Accept(accepted)
		s.span = accept.Serve()
		accept.End()
	}
	return wrap(c, s), nil
}

// Close closes this process's copy of the socket.
func (l *ownListener) Close() error {
	if !l.close(true) {
		return &net.OpError{Op: "close", Net: l.address.Network(), Addr: l.address, Err: net.ErrClosed}
	}
	return l.err
}

func (l *ownListener) shut() { l.close(false) }

func (l *ownListener) close(tell bool) (first bool) {
	l.once.Do(func() {
		first = true
		l.err = l.ln.Close()
		l.ls.forget(l, l.number)
		if l.number != 0 && tell {
			l.ls.tell(l.ls.cfg.Master, KindClosed, l.number)
		}
		if l.done != nil {
			l.done()
		}
	})
	return first
}

// Addr returns the address that the socket is bound to.
func (l *ownListener) Addr() net.Addr { return l.address }
