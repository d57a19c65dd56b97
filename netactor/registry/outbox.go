package registry

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// outbox sends the master's frames to one peer in order, without waiting for it. Usually it sends a
// frame at once. A frame waits until the Conn's handshake is over, because descriptors cannot
// travel before, while the peer is behind, and while the Conn is suspended; the later frames wait
// with it.
type outbox struct {
	c      *fdipc.Conn
	logger *slog.Logger

	mu    sync.Mutex
	queue []*fdipc.Frame // not empty while run works
	over  bool           // the peer was given up
}

const (
	maxOutbox     = 1024             // frames that may wait for one peer
	outboxTimeout = 10 * time.Second // how long a frame may wait
)

// send takes ownership of f and its handles. It closes the Conn of a peer that is too far behind:
// such a peer does not read its frames.
func (o *outbox) send(f *fdipc.Frame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over {
		closeHandles(f)
		return
	}
	if len(o.queue) == 0 {
		err := o.c.TrySend(f)
		if !errors.Is(err, fdipc.ErrFull) && !errors.Is(err, fdipc.ErrSuspended) {
			if err != nil { // the peer is gone; its Conn reports that
				closeHandles(f)
			}
			return
		}
		go o.run() // owned by the Conn: ends when the queue is empty, or with the Conn
	}
	o.queue = append(o.queue, f)
	if len(o.queue) > maxOutbox {
		o.giveUpLocked(fdipc.ErrFull)
	}
}

func (o *outbox) run() {
	for {
		o.mu.Lock()
		if o.over || len(o.queue) == 0 {
			o.mu.Unlock()
			return
		}
		f := o.queue[0]
		o.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), outboxTimeout)
		err := o.c.Send(ctx, f)
		cancel()
		o.mu.Lock()
		if o.over {
			if err != nil {
				closeHandles(f)
			}
			o.mu.Unlock()
			return
		}
		if err != nil {
			o.giveUpLocked(err)
			closeHandles(f)
			o.mu.Unlock()
			return
		}
		o.queue = o.queue[1:]
		o.mu.Unlock()
	}
}

// giveUpLocked ends the outbox, and the Conn if it has not ended. run owns the first frame of the
// queue.
func (o *outbox) giveUpLocked(err error) {
	o.over = true
	for _, f := range o.queue[1:] {
		closeHandles(f)
	}
	o.queue = nil
	if o.c.Err() == nil {
		o.logger.Error("peer does not read its control frames, closing its channel", "err", err)
		go o.c.Close() // waits a moment for the peer, then returns
	}
}

func closeHandles(f *fdipc.Frame) {
	for _, h := range f.Handles {
		_ = h.Close()
	}
}
