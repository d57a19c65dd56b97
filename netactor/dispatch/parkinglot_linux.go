package dispatch

import (
	"cmp"
	"container/heap"
	"context"
	"encoding/binary"
	"maps"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/balance"
	"github.com/coppice-go/coppice/netactor/internal/epoll"
	"github.com/coppice-go/coppice/netactor/internal/shm"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// parkingLot has the connections that workers have given back between two requests. Its goroutine
// waits until a client sends something, or leaves, or has been idle for too long.
//
// A connection is in conns and in the epoll, or with the goroutine that has taken it out of both;
// that one alone looks at it and closes it. A nil parkingLot has no connection.
type parkingLot struct {
	dispatcher *Dispatcher
	poll       *epoll.Poll
	limit      int // connections parked at once
	ctx        context.Context
	cancel     context.CancelFunc // ends ctx, with close

	mu       sync.Mutex // a leaf; held over epoll_ctl, which does not wait
	conns    map[int32]*parkedConn
	given    map[uint64]int     // how many of conns each worker has given
	arrivals balance.ConnList   // those of conns, the oldest first
	timeouts timeoutHeap        // those of conns that have a timeout
	ended    map[*acceptor]bool // listeners that have ended; true: a successor takes their connections
	changed  bool               // ended or closed has changed
	closed   bool

	// Used by run's goroutine alone.
	buf     peekBuf
	actions actions
}

// parkedConn is a connection in the lot.
type parkedConn struct {
	*balance.PendingConn
	acceptor *acceptor
	giver    uint64 // the worker that gave it
	index    int    // in timeouts; -1 if it is not there
}

const parkedEvents = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT

func newParkingLot(d *Dispatcher) (*parkingLot, error) {
	poll, err := epoll.New("parked")
	if err != nil {
		return nil, err
	}
	k := &parkingLot{
		dispatcher: d, poll: poll, limit: cmp.Or(d.hooks.Park, max(1, ceiling()/4*3)),
		conns: make(map[int32]*parkedConn), given: make(map[uint64]int), ended: make(map[*acceptor]bool),
	}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	return k, nil
}

// add parks a connection that the balancer has as parked.
func (k *parkingLot) add(c *parkedConn) {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		k.dispatcher.dropParked(c.PendingConn, &c.Listener.Counts.Dropped)
		return
	}
	if k.dispatcher.hooks.NoWatch || k.poll.Add(c.FD, parkedEvents) != nil { // out of memory, or of fs.epoll.max_user_watches: some worker may have it
		k.mu.Unlock()
		k.offer(c, nil, new(actions))
		return
	}
	k.insertLocked(c)
	if _, ended := k.ended[c.acceptor]; ended {
		k.changedLocked()
	}
	var over *parkedConn
	if len(k.conns) > k.limit {
		over = k.takeLocked(k.victimLocked(c.giver))
	}
	k.mu.Unlock()
	if over != nil {
		k.dispatcher.dropParked(over.PendingConn, &over.Listener.Counts.ParkedOver)
	}
}

func (k *parkingLot) insertLocked(c *parkedConn) {
	k.conns[int32(c.FD)] = c
	k.given[c.giver]++
	k.arrivals.Push(c.PendingConn)
	c.index = -1
	if c.Until != 0 {
		heap.Push(&k.timeouts, c)
		if c.index == 0 {
			k.poll.Wake() // it is the next to time out
		}
	}
}

// victimLocked returns the connection to close when there are too many: the oldest, but of a worker
// that gave more than half of all its own.
func (k *parkingLot) victimLocked(giver uint64) (fd int32) {
	p := k.arrivals.Head
	for k.given[giver] > k.limit/2 && k.conns[int32(p.FD)].giver != giver {
		p = p.Next()
	}
	return int32(p.FD)
}

// take takes a connection out of the lot; it returns nil if it is not there.
func (k *parkingLot) take(fd int32) *parkedConn {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.takeLocked(fd)
}

func (k *parkingLot) takeLocked(fd int32) *parkedConn {
	c := k.conns[fd]
	if c == nil {
		return nil
	}
	k.poll.Remove(c.FD)
	delete(k.conns, fd)
	if k.given[c.giver]--; k.given[c.giver] == 0 {
		delete(k.given, c.giver)
	}
	k.arrivals.Remove(c.PendingConn)
	if c.index >= 0 {
		heap.Remove(&k.timeouts, c.index)
	}
	return c
}

// end ends the parking for a listener that has ended: its connections, and those that come later,
// go to the successor of this process, or are closed. It does not wait.
func (k *parkingLot) end(a *acceptor, successor bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if was, ended := k.ended[a]; !ended || was != successor {
		k.ended[a] = successor
		k.changedLocked()
	}
}

// forget is called when the listener has no connection left.
func (k *parkingLot) forget(a *acceptor) {
	if k != nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.ended, a)
	}
}

// close closes all connections, and each that comes later, and ends run.
func (k *parkingLot) close() {
	if k != nil {
		k.cancel()
		k.mu.Lock()
		defer k.mu.Unlock()
		k.closed = true
		k.changedLocked()
	}
}

func (k *parkingLot) changedLocked() {
	k.changed = true
	k.poll.Wake()
}

// run waits for clients until close.
func (k *parkingLot) run() {
	for k.round() {
	}
	k.poll.Close()
}

func (k *parkingLot) round() bool {
	k.mu.Lock()
	changed, closed := k.changed, k.closed
	k.changed = false
	if !changed {
		k.poll.WakeAt(k.nextLocked())
	}
	k.mu.Unlock()
	if closed {
		k.dropAll(k.takeAll(func(*parkedConn) bool { return true }))
		return false
	}
	var events []unix.EpollEvent
	if changed {
		k.endListeners()
		events = k.poll.Look()
	} else {
		events = k.poll.Wait()
	}
	for _, e := range events {
		if c := k.take(e.Fd); c != nil && !k.resume(c) {
			k.add(c)
		}
	}
	if len(events) < epoll.MaxEvents { // else a request may have come in time, and wait for its turn
		k.expire()
	}
	return true
}

func (k *parkingLot) nextLocked() time.Time {
	if len(k.timeouts) == 0 {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(k.timeouts[0].Until - shm.Monotonic()))
}

// expire closes the connections that have been idle for too long.
func (k *parkingLot) expire() {
	for {
		k.mu.Lock()
		var c *parkedConn
		if len(k.timeouts) > 0 && k.timeouts[0].Until <= shm.Monotonic() {
			c = k.takeLocked(int32(k.timeouts[0].FD))
		}
		k.mu.Unlock()
		if c == nil {
			return
		}
		if !k.resume(c) {
			k.dispatcher.dropParked(c.PendingConn, &c.Listener.Counts.ParkedIdle)
		}
	}
}

// resume has a connection offered whose client has sent something, and closes one whose client has
// left. It returns false for another.
func (k *parkingLot) resume(c *parkedConn) bool {
	switch n, err := recvPeek(c.FD, k.buf[:1]); {
	case err == unix.EAGAIN:
		return false
	case err != nil || n == 0:
		k.dispatcher.dropParked(c.PendingConn, &c.Listener.Counts.ParkedLeft)
	default:
		k.offer(c, &k.buf, &k.actions)
	}
	return true
}

// offer has a connection offered. If the listener looks at first bytes, offer looks at them too, in
// buf; nil is not to look.
func (k *parkingLot) offer(c *parkedConn, buf *peekBuf, acts *actions) {
	d, p, peeker := k.dispatcher, c.PendingConn, c.acceptor.peeker
	startAgain(p, c.acceptor)
	if peeker != nil && buf != nil {
		peeker.look(p, buf, 0)
	}
	if p.Peek == balance.PeekReset {
		traceUnserved(p, errReset)
		d.dropParked(p, &p.Listener.Counts.ParkedLeft)
		return
	}
	if p.Peek == balance.PeekIncomplete {
		d.mu.Lock()
		peeks := !c.acceptor.ended && d.balancer.ResumePeek(p, peeker.limit)
		d.mu.Unlock()
		if peeks {
			peeker.await([]*balance.PendingConn{p})
			return
		}
		p.Peek = balance.PeekTooMany
		d.judge(p)
	}
	d.resume(acts, p)
}

// takeAll takes all connections out of the lot for which f is true.
func (k *parkingLot) takeAll(f func(*parkedConn) bool) (all []*parkedConn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for fd, c := range k.conns {
		if f(c) {
			all = append(all, k.takeLocked(fd))
		}
	}
	return all
}

func (k *parkingLot) dropAll(cs []*parkedConn) {
	for _, c := range cs {
		k.dispatcher.dropParked(c.PendingConn, &c.Listener.Counts.Dropped)
	}
}

// endListeners closes or passes on the connections of the listeners that have ended.
func (k *parkingLot) endListeners() {
	k.mu.Lock()
	ended := maps.Clone(k.ended)
	k.mu.Unlock()
	for a, successor := range ended {
		cs := k.takeAll(func(c *parkedConn) bool { return c.acceptor == a })
		if !successor {
			k.dropAll(cs)
			continue
		}
		if rest := k.passOn(a, cs); len(rest) > 0 { // until a worker is there, or close
			time.AfterFunc(passPause, func() {
				for _, c := range rest {
					k.add(c)
				}
			})
		}
	}
}

const (
	passAtOnce  = netactor.LinkCredits
	passTimeout = 200 * time.Millisecond // of one frame
	passPause   = 50 * time.Millisecond
)

// passOn sends connections to the workers, who pass them on to the listener process that they are
// linked with now: the two listener processes have no link with each other. It returns those that
// no worker took.
func (k *parkingLot) passOn(a *acceptor, cs []*parkedConn) (rest []*parkedConn) {
	d := k.dispatcher
	var links []*fdipc.Conn
	d.mu.Lock()
	for _, m := range a.listener.Members {
		if m.Joined() && m.Worker.Link != nil {
			links = append(links, m.Worker.Link)
		}
	}
	d.mu.Unlock()
	for len(cs) > 0 && len(links) > 0 {
		batch := cs[:min(len(cs), passAtOnce)]
		f := &fdipc.Frame{Kind: wire.KindPark, Target: a.listener.Number}
		for _, c := range batch {
			c.Passing = true
			c.Passes++
			f.Handles = append(f.Handles, c.Handle)
			f.Payload = binary.LittleEndian.AppendUint64(f.Payload, uint64(c.Until))
		}
		ctx, cancel := context.WithTimeout(k.ctx, passTimeout)
		err := links[0].Send(ctx, f)
		cancel()
		if err != nil {
			for _, c := range batch { // they are still ours
				c.Passing = false
				c.Passes--
			}
			links = links[1:]
			continue
		}
		cs, links = cs[len(batch):], append(links[1:], links[0])
	}
	return cs
}

// timeoutHeap is a heap of connections by Until.
type timeoutHeap []*parkedConn

func (h timeoutHeap) Len() int           { return len(h) }
func (h timeoutHeap) Less(i, j int) bool { return h[i].Until < h[j].Until }

func (h timeoutHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *timeoutHeap) Push(x any) {
	c := x.(*parkedConn)
	c.index = len(*h)
	*h = append(*h, c)
}

func (h *timeoutHeap) Pop() any {
	old := *h
	c := old[len(old)-1]
	c.index = -1
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return c
}
