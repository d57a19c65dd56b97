package actors

import (
	"errors"
	"net"
	"sync"

	"github.com/coppice-go/coppice/fdipc"
)

// laneCredits bounds the handles that are on their way in one direction of a lane.
const laneCredits = 256

// laneEnds makes the two ends of a lane, as handles: sockets, or values where both children are
// goroutines of this process.
func laneEnds(a, b Conn) (*fdipc.Handle, *fdipc.Handle, error) {
	if inProcess(a) && inProcess(b) {
		x, y := laneInMemory()
		h, err1 := fdipc.HandleOf(x)
		g, err2 := fdipc.HandleOf(y)
		return h, g, errors.Join(err1, err2)
	}
	x, y, err := fdipc.Socketpair()
	if err != nil {
		return nil, nil, err
	}
	h, err := fdipc.HandleOf(x)
	if err != nil {
		return nil, nil, errors.Join(err, x.Close(), y.Close())
	}
	g, err := fdipc.HandleOf(y)
	if err != nil {
		return nil, nil, errors.Join(err, h.Close(), y.Close())
	}
	return h, g, nil
}

func inProcess(c Conn) bool {
	m, ok := c.(interface{ InProcess() bool })
	return ok && m.InProcess()
}

// memoryEnd is an end of a lane within the process, on its way as a handle: a net.Conn in name
// only. Frames for it wait until it has an owner.
type memoryEnd struct {
	net.Conn
	conn  *fdipc.Conn
	once  sync.Once
	owned chan struct{} // closed when owner is set, or the end is given up
	owner fdipc.Config
}

func laneInMemory() (a, b *memoryEnd) {
	a, b = &memoryEnd{owned: make(chan struct{})}, &memoryEnd{owned: make(chan struct{})}
	a.conn, b.conn = fdipc.Pipe(a.config(), b.config())
	return a, b
}

func (e *memoryEnd) config() fdipc.Config {
	return fdipc.Config{
		Credits: laneCredits,
		Handler: func(c *fdipc.Conn, f *fdipc.Frame) {
			<-e.owned
			if e.owner.Handler == nil {
				f.Refuse(fdipc.ReasonClosed)
				return
			}
			e.owner.Handler(c, f)
		},
		Closed: func(c *fdipc.Conn, err error) {
			<-e.owned
			if e.owner.Closed != nil {
				e.owner.Closed(c, err)
			}
		},
	}
}

func (e *memoryEnd) own(cfg fdipc.Config) *fdipc.Conn {
	e.once.Do(func() {
		e.owner = cfg
		close(e.owned)
	})
	return e.conn
}

// Close gives up an end that was not taken.
func (e *memoryEnd) Close() error {
	e.own(fdipc.Config{})
	return e.conn.Close()
}

// connOf makes the Conn of an end of a lane that arrived as a handle.
func connOf(h *fdipc.Handle, cfg fdipc.Config) (*fdipc.Conn, error) {
	if h.Kind() == fdipc.HandleValue {
		v, err := h.Conn()
		if err != nil {
			return nil, err
		}
		if e, ok := v.(*memoryEnd); ok {
			return e.own(cfg), nil
		}
		_ = v.Close()
		return nil, fdipc.ErrHandleKind
	}
	f, err := h.File()
	if err != nil {
		return nil, err
	}
	return fdipc.New(f, cfg)
}
