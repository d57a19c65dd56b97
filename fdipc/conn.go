package fdipc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coppice-go/coppice/fdipc/internal/claims"
	"github.com/coppice-go/coppice/fdipc/internal/closer"
)

// Conn is one side of a connection between two processes, or within one. All its methods may
// be called concurrently, and from its callbacks where nothing else is said.
type Conn struct {
	cfg    Config
	lanes  [lanes]*lane
	offers offerRecord
	stats  counters

	control   endpoint
	memory    bool          // control is within this process
	dataOut   endpoint      // the socket of our data lane
	table     *claims.Table // our claim table
	standIn   attachment    // a stand-in for descriptors that were taken back: the claim table's, or none
	peer      *claims.Table // the peer's claim table; set by the handshake
	peerTable attachment    // its descriptor, if Config.Suspendable is set; else none
	data      endpoint      // the socket of the peer's data lane; set by the handshake
	receivers [lanes]*receiver
	dataEnded chan struct{} // closed when nothing more comes on data
	held      atomic.Int64  // received handles neither claimed nor refused
	maxHeld   int64         // of those
	closers   closer.Closer // of what came from the peer, and of what it has claimed
	maxFrame  atomic.Int64  // the lower of both sides' limits

	mu        sync.Mutex
	err       error
	endpoints []endpoint
	ready     bool // the handshake is over
	leaving   bool // Close has begun to say goodbye; the peer may be quicker to close
	pauses    pauses

	ending  chan struct{}  // closed by fail
	ended   atomic.Bool    // the same, cheaper to ask
	done    chan struct{}  // closed when readers and writers have ended
	wg      sync.WaitGroup // readers and writers
	hsTimer *time.Timer
}

// New starts a Conn over f, one end of a connected SOCK_SEQPACKET socket, such as
// [Socketpair] makes and [Inherited] finds. It takes ownership of f, also when it fails.
//
// New returns when this side is set up; the handshake goes on in the background, and what is sent
// before it is over waits. Both sides call New; neither is the first.
func New(f *os.File, cfg Config) (*Conn, error) {
	if err := cfg.validate(); err != nil {
		f.Close()
		return nil, err
	}
	e, err := newSocketEnd(f)
	if err != nil {
		return nil, fmt.Errorf("fdipc: new: %w", err)
	}
	c := newConn(cfg)
	if err := c.start(e); err != nil {
		return nil, fmt.Errorf("fdipc: new: %w", err)
	}
	return c, nil
}

func newConn(cfg Config) *Conn {
	c := &Conn{
		cfg:    cfg,
		ending: make(chan struct{}),
		done:   make(chan struct{}),

		dataEnded: make(chan struct{}),
		standIn:   noAttachment,
		peerTable: noAttachment,
	}
	c.closers.Init(func(running, waiting int) {
		c.fail(fmt.Errorf("%w: the close of %d of its descriptors does not end, and %d more wait", ErrExcess, running, waiting))
	})
	c.maxHeld = maxHeld(cfg.Credits)
	c.maxFrame.Store(int64(cfg.MaxFrame))
	c.offers.init(c)
	c.hsTimer = time.AfterFunc(time.Hour, func() { c.fail(ErrHandshake) })
	c.hsTimer.Stop()
	for i := range c.lanes {
		c.lanes[i] = newLane(c, Lane(i))
		c.receivers[i] = &receiver{c: c}
	}
	return c
}

// Send queues f, and waits under ctx while there is no room or too little credit. When it
// returns nil the payload may be reused and the handles belong to the Conn; on an error they belong
// to the caller. A frame that was queued may still not arrive; Resolved reports what became of its
// handles.
//
// While the Conn is suspended it waits too.
//
// Errors: ctx's, [ErrClosed], [ErrPeerLost] and other ends of the Conn, [ErrTooBig],
// [ErrTooManyHandles], [ErrKind], [ErrHandleUsed].
func (c *Conn) Send(ctx context.Context, f *Frame) error {
	if err := c.send(ctx, f); err != nil {
		return fmt.Errorf("fdipc: send: %w", err)
	}
	return nil
}

// TrySend is Send without waiting: it returns [ErrFull], or [ErrSuspended]. It may be used from any
// callback.
func (c *Conn) TrySend(f *Frame) error {
	err := c.send(nil, f) //nolint:staticcheck // nil means: do not wait
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrFull) {
		c.stats.full.Add(1)
		return ErrFull // often, and to be cheap
	}
	return fmt.Errorf("fdipc: send: %w", err)
}

func (c *Conn) send(ctx context.Context, f *Frame) error {
	if f.Kind < FirstUserKind || f.Lane >= lanes {
		return ErrKind
	}
	if limit := f.Lane.limit(int(c.maxFrame.Load())); len(f.Payload) > limit {
		return tooBig(len(f.Payload), limit)
	}
	if len(f.Handles) == 0 && c.lanes[f.Lane].tryAppend(f) {
		return nil
	}
	for i, h := range f.Handles {
		if err := h.take(c.memory); err != nil {
			for _, h := range f.Handles[:i] {
				h.resolve(Returned)
			}
			return err
		}
	}
	err := c.put(ctx, f)
	if err != nil {
		for _, h := range f.Handles {
			h.resolve(Returned)
		}
	}
	return err
}

// put queues f as soon as there is room and credit; ctx nil means at once or not at all.
func (c *Conn) put(ctx context.Context, f *Frame) error {
	l := c.lanes[f.Lane]
	for {
		l.mu.Lock()
		if err := cmp.Or(l.err, l.refusal); err != nil && (l.err != nil || !l.suspended || ctx == nil) {
			l.mu.Unlock()
			return err
		}
		if l.suspended || !l.fitsLocked(len(f.Payload)) {
			if ctx == nil {
				l.mu.Unlock()
				return ErrFull
			}
			if err := l.waitRoom(ctx); err != nil {
				return err
			}
			continue
		}
		entries := l.describeLocked(f.Handles)
		if len(entries) > 0 {
			if wait, err := c.offers.reserve(entries, f.Handles, ctx != nil); err != nil {
				l.mu.Unlock()
				if !errors.Is(err, errAgain) {
					return err
				}
				if ctx == nil {
					return ErrFull
				}
				select {
				case <-wait:
				case <-ctx.Done():
					return ctx.Err()
				}
				continue
			}
		}
		l.putLocked(f, entries)
		l.sendLocked(f.More)
		return nil
	}
}

// maxAnswers is how many frames of the transport's own may wait beyond a full queue. Each answers a
// frame of the peer's. A peer that causes more of them, and does not read, is cut off.
const maxAnswers = 1 << 14

// tooManyAnswersLocked reports whether there are more than maxAnswers; then it ends the Conn.
func (l *lane) tooManyAnswersLocked() bool {
	over := l.frames > l.c.cfg.QueueFrames+maxAnswers
	if over {
		go l.c.fail(fmt.Errorf("%w: it does not read %d answers", ErrExcess, l.frames))
	}
	return over
}

// transport sends a frame of the transport's own on the control lane, past the queue's bounds.
func (c *Conn) transport(kind Kind, target uint64) {
	l := c.lanes[Control]
	l.mu.Lock()
	if l.err != nil || l.tooManyAnswersLocked() {
		l.mu.Unlock()
		return
	}
	l.putLocked(&Frame{Kind: kind, Target: target}, nil)
	l.sendLocked(false)
}

// Flush waits until the kernel has taken what was queued on a lane, or until ctx or the Conn ends.
// It reports whether it has; what the kernel took may still not arrive.
func (c *Conn) Flush(ctx context.Context, lane Lane) bool { return c.lanes[lane].flush(ctx) }

// Credit is the number of handles that may be offered now. While it is too low,
// TrySend of a frame with handles returns ErrFull; the next Resolved is the sign to try again.
func (c *Conn) Credit() int {
	o := &c.offers
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended || o.paused {
		return 0
	}
	o.advanceLocked(now())
	if len(o.free) < (len(o.slots)+1)/2 || o.stalled {
		o.gatherLocked(1)
	}
	return o.availableLocked()
}

// ResolveOffers finds out what became of offers now, instead of at the next tick, and calls
// Resolved on this goroutine. It is for a sender that is short of room and wants to keep its turn.
// It waits for a call of Resolved that is under way, so it must not be called from one; and for the
// end of a suspension.
func (c *Conn) ResolveOffers() { c.offers.poll() }

// InProcess reports whether the peer is in the same process: the two were joined by [Pipe].
func (c *Conn) InProcess() bool { return c.memory }

// Done is closed when the Conn has ended: no callback runs any more but Closed.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is nil while the Conn works, then the reason why it ended: [ErrClosed], io.EOF
// when the peer closed it, [ErrPeerLost], [ErrProtocol] and others.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
