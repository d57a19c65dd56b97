package netactor

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// post sends the master's frames to one peer in order, without waiting for it.
// A frame goes out at once as a rule. It has to wait where a Conn's handshake is
// not over, so that descriptors cannot travel yet, or where the peer is behind;
// then those after it wait too.
type post struct {
	c      *fdipc.Conn
	logger *slog.Logger

	mu    sync.Mutex
	queue []*fdipc.Frame // not empty while run is at work
	over  bool           // the peer was given up
}

const (
	maxPost     = 1024             // frames that may wait for one peer
	postTimeout = 10 * time.Second // how long one may wait
)

// send takes ownership of f and its handles. A peer that is too far behind does
// not read what the master says: it is as good as dead, and its Conn is closed.
func (p *post) send(f *fdipc.Frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		closeHandles(f)
		return
	}
	if len(p.queue) == 0 {
		err := p.c.TrySend(f)
		if !errors.Is(err, fdipc.ErrFull) {
			if err != nil { // the peer is gone, which others notice
				closeHandles(f)
			}
			return
		}
		go p.run() // owned by the Conn: ends when the queue is empty, or with the Conn
	}
	p.queue = append(p.queue, f)
	if len(p.queue) > maxPost {
		p.giveUpLocked(fdipc.ErrFull)
	}
}

func (p *post) run() {
	for {
		p.mu.Lock()
		if p.over || len(p.queue) == 0 {
			p.mu.Unlock()
			return
		}
		f := p.queue[0]
		p.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), postTimeout)
		err := p.c.Send(ctx, f)
		cancel()
		p.mu.Lock()
		if p.over {
			if err != nil {
				closeHandles(f)
			}
			p.mu.Unlock()
			return
		}
		if err != nil {
			p.giveUpLocked(err)
			closeHandles(f)
			p.mu.Unlock()
			return
		}
		p.queue = p.queue[1:]
		p.mu.Unlock()
	}
}

// giveUpLocked ends the post, and the Conn if it has not ended. The first frame
// of the queue is run's.
func (p *post) giveUpLocked(err error) {
	p.over = true
	for _, f := range p.queue[1:] {
		closeHandles(f)
	}
	p.queue = nil
	if p.c.Err() == nil {
		p.logger.Error("peer does not read its control frames, closing its channel", "err", err)
		go p.c.Close() // waits a moment for the peer, then ends by itself
	}
}

func closeHandles(f *fdipc.Frame) {
	for _, h := range f.Handles {
		_ = h.Close()
	}
}
