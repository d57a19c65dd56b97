package listen

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// returningConns are the connections on their way from a worker to the listener process. A
// connection is the worker's until the listener process has claimed it. One that comes back goes
// out again, by the next link if this one has ended.
type returningConns struct {
	ls *Listeners

	mu      sync.Mutex
	queue   []*returningConn
	running bool          // a goroutine sends the queue
	pending int           // in the queue, or sent and not settled
	stopped bool          // no more are sent
	none    noneLeft      // of pending
	wake    chan struct{} // capacity 1: there is another link, or more in the queue

	ctx  context.Context // of sends; ends with stop
	stop context.CancelFunc
}

// returningConn is one connection on its way.
type returningConn struct {
	handle *fdipc.Handle
	number uint64      // of its listener
	until  int64       // when it has been idle for too long, by shm.Monotonic; 0 is never
	record *connRecord // nil if the connection is only passed on, from an earlier listener process

	not   *fdipc.Conn // the link by which it cannot go; nil if there is none
	tries int         // how often it came back although there is a link
}

const (
	maxTries   = 40
	retryPause = 50 * time.Millisecond
)

func newReturningConns(ls *Listeners) *returningConns {
	d := &returningConns{ls: ls, none: newNoneLeft(), wake: make(chan struct{}, 1)}
	d.ctx, d.stop = context.WithCancel(context.Background())
	return d
}

// add sends connections to the listener process, in the background.
func (d *returningConns) add(all ...*returningConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pending += len(all)
	d.queueLocked(all...)
}

func (d *returningConns) queueLocked(all ...*returningConn) {
	d.queue = append(d.queue, all...)
	if !d.running {
		d.running = true
		go d.run() // ends when the queue is empty, or with end
	} else {
		d.linked() // run may wait, and these be able to go
	}
}

// run sends the queue.
func (d *returningConns) run() {
	for {
		link := d.ls.currentLink()
		batch := d.next(link)
		if batch == nil {
			return
		}
		if len(batch) == 0 { // there is no link for them
			select {
			case <-d.wake:
			case <-d.ctx.Done():
			}
			continue
		}
		f := &fdipc.Frame{Kind: wire.KindPark, Target: batch[0].number}
		for _, x := range batch {
			x.handle.Tag = x
			f.Handles = append(f.Handles, x.handle)
			f.Payload = binary.LittleEndian.AppendUint64(f.Payload, uint64(x.until))
		}
		if err := link.Send(d.ctx, f); err != nil { // they are still ours
			over := isClosed(link.Done())
			d.mu.Lock()
			for _, x := range batch {
				if over {
					x.not = link
					d.queue = append(d.queue, x)
				} else {
					d.againLocked(x)
				}
			}
			d.mu.Unlock()
		}
	}
}

// next takes the connections out of the queue that go next, by link: some of one listener. There
// are none if none can go by it. It returns nil, and run ends, if the queue is empty. Once stopped,
// it closes them all.
func (d *returningConns) next(link *fdipc.Conn) []*returningConn {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		for _, x := range d.queue {
			d.dropLocked(x)
		}
		d.queue = nil
	}
	if len(d.queue) == 0 {
		d.running, d.queue = false, nil
		return nil
	}
	batch := []*returningConn{}
	if link == nil {
		return batch
	}
	most := min(netactor.LinkCredits, max(1, link.Credit()))
	rest := d.queue[:0]
	for _, x := range d.queue {
		if len(batch) < most && x.not != link && (len(batch) == 0 || x.number == batch[0].number) {
			batch = append(batch, x)
		} else {
			rest = append(rest, x)
		}
	}
	clear(d.queue[len(rest):])
	d.queue = rest
	return batch
}

// linked makes run look again: there is another link.
func (d *returningConns) linked() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// settled handles the outcome of a connection that was sent over link.
func (d *returningConns) settled(link *fdipc.Conn, x *returningConn, o fdipc.Outcome) {
	d.mu.Lock()
	defer d.mu.Unlock()
	reason := x.handle.Reason() // if it was refused
	switch {
	case o == fdipc.Claimed:
		d.doneLocked(x)
	case isClosed(link.Done()), o == fdipc.Refused && reason == wire.ReasonRetired:
		x.not = link
		d.queueLocked(x)
	case o != fdipc.Refused:
		d.queueLocked(x)
	case reason == wire.ReasonClosed:
		d.dropLocked(x)
	default: // the listener may open soon, the listener process have descriptors again
		d.againLocked(x)
	}
}

// againLocked sends a connection again after a pause, some times.
func (d *returningConns) againLocked(x *returningConn) {
	if x.tries++; x.tries > maxTries || d.stopped {
		d.dropLocked(x)
		return
	}
	time.AfterFunc(retryPause, func() { // bounded by maxTries
		d.mu.Lock()
		defer d.mu.Unlock()
		d.queueLocked(x)
	})
}

// dropLocked closes a connection that cannot go back.
func (d *returningConns) dropLocked(x *returningConn) {
	_ = x.handle.Close()
	d.doneLocked(x)
}

// doneLocked counts a connection as over.
func (d *returningConns) doneLocked(x *returningConn) {
	if x.record != nil {
		x.record.conns.done(x.record)
	}
	d.pending--
	if d.pending == 0 {
		d.none.signal()
	}
}

func (d *returningConns) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pending
}

// wait waits until no connection is on its way, or ctx ends.
func (d *returningConns) wait(ctx context.Context) error { return d.none.await(ctx, d.count) }

// end closes the connections that are not sent yet, and each that comes later.
func (d *returningConns) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	d.stop()
	if !d.running && len(d.queue) > 0 {
		d.running = true
		go d.run() // closes the queue, and ends
	}
}
