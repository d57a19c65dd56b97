package dispatch

import (
	"cmp"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/balance"
	"github.com/coppice-go/coppice/netactor/internal/epoll"
	"github.com/coppice-go/coppice/netactor/internal/peek"
	"github.com/coppice-go/coppice/netactor/internal/shm"
)

// peeker looks at the first bytes of one listener's connections. The acceptor's goroutine looks at
// the bytes that are there at accept; run waits for the rest, with the peeker's epoll.
//
// Peeked bytes stay in the socket, so it is always readable. The epoll is therefore edge-triggered,
// and reports once for each segment. A client that sends byte by byte costs one look per byte, at
// most peek.MaxBytes looks.
//
// Run alone has a peeking connection, until run gives it back to the balancer. So no other
// goroutine closes a descriptor that run looks at. A nil peeker does nothing.
type peeker struct {
	acceptor  *acceptor
	peek      netactor.Peek
	f         netactor.Functions
	limit     int     // connections that may wait at once
	acceptBuf peekBuf // used by the acceptor's goroutine

	poll *epoll.Poll

	mu      sync.Mutex
	inbox   []*balance.PendingConn // new connections for run to wait for
	sealed  bool                   // no more connections will come
	dropped bool                   // run is to close all its connections

	// Used by run's goroutine alone.
	ownBuf  peekBuf
	waits   map[int32]*balance.PendingConn // by descriptor
	queue   balance.ConnList               // the connections of waits, oldest first
	ready   []*balance.PendingConn         // to be given back to the balancer
	actions actions
}

// peekBuf holds the peeked bytes.
type peekBuf [peek.MaxBytes]byte

func newPeeker(a *acceptor, p netactor.Peek, f netactor.Functions) (*peeker, error) {
	poll, err := epoll.New("peeks")
	if err != nil {
		return nil, err
	}
	return &peeker{
		acceptor: a, peek: p, f: f, limit: min(maxPeeking, max(1, ceiling()/4)),
		poll: poll, waits: make(map[int32]*balance.PendingConn),
	}, nil
}

// close closes a peeker whose run was never called.
func (k *peeker) close() {
	if k != nil {
		k.poll.Close()
	}
}

// lookAtNew looks at the bytes that are there for new connections.
func (k *peeker) lookAtNew(ts []*balance.PendingConn) {
	if k == nil {
		return
	}
	for _, p := range ts {
		k.look(p, &k.acceptBuf, 0)
	}
}

// await hands connections that have not sent enough to run. The balancer has them as peeking.
func (k *peeker) await(ts []*balance.PendingConn) {
	if len(ts) > 0 {
		k.tell(func() { k.inbox = append(k.inbox, ts...) })
	}
}

// seal marks that no more connections will come: run ends when the last one has sent enough.
func (k *peeker) seal() { k.tell(func() { k.sealed = true }) }

// drop makes run close its connections.
func (k *peeker) drop() { k.tell(func() { k.dropped = true }) }

// tell calls f under the lock, and makes run check inbox, sealed and dropped.
func (k *peeker) tell(f func()) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
	k.poll.Wake()
}

// run waits for first bytes until the peeker is sealed and has no connections.
func (k *peeker) run() {
	for k.round() {
	}
	k.poll.Close()
}

// round takes the new connections, and looks at those that have events. It does both each time, so
// many new connections do not delay the waiting ones. It waits if there is nothing to do, and
// returns false when run must end.
func (k *peeker) round() bool {
	k.mu.Lock()
	in, dropped := k.inbox, k.dropped
	k.inbox = nil
	over := k.sealed && len(in) == 0 && k.queue.Head == nil
	if len(in) == 0 {
		k.poll.WakeAt(k.next())
	}
	k.mu.Unlock()
	if over {
		return false
	}
	for _, p := range in {
		k.begin(p)
	}
	var events []unix.EpollEvent
	switch {
	case len(in) > 0:
		events = k.poll.Look()
	case !dropped || k.queue.Head == nil:
		events = k.poll.Wait()
	}
	for _, e := range events {
		if p := k.waits[e.Fd]; p != nil && k.look(p, &k.ownBuf, e.Events) != balance.PeekIncomplete {
			k.end(p)
		}
	}
	k.expire(dropped)
	k.flush(dropped)
	return true
}

// next returns when the time of the oldest waiting connection is over; zero if none waits.
func (k *peeker) next() time.Time {
	if k.queue.Head == nil {
		return time.Time{}
	}
	return time.Now().Add(k.left(k.queue.Head))
}

func (k *peeker) left(p *balance.PendingConn) time.Duration {
	return cmp.Or(k.peek.Timeout, defaultTimeout) - time.Duration(shm.Monotonic()-p.At)
}

// begin starts to wait for a connection. If bytes came since the last look, epoll reports them.
func (k *peeker) begin(p *balance.PendingConn) {
	k.queue.Push(p)
	k.waits[int32(p.FD)] = p
	if k.poll.Add(p.FD, unix.EPOLLIN|unix.EPOLLRDHUP|1<<31) != nil { // EPOLLET // out of memory, or of fs.epoll.max_user_watches
		p.Peek = balance.PeekTooMany
		k.acceptor.dispatcher.judge(p)
		k.end(p)
	}
}

// end takes a connection off the epoll.
func (k *peeker) end(p *balance.PendingConn) {
	k.queue.Remove(p)
	delete(k.waits, int32(p.FD))
	k.poll.Remove(p.FD)
	k.ready = append(k.ready, p)
}

// expire ends the wait of the connections whose time is over, or of all.
func (k *peeker) expire(all bool) {
	for p := k.queue.Head; p != nil && (all || k.left(p) <= 0); p = k.queue.Head {
		p.Peek = balance.PeekTimedOut
		k.acceptor.dispatcher.judge(p)
		k.end(p)
	}
}

// flush gives the connections that no longer wait back to the balancer, and offers them.
func (k *peeker) flush(dropped bool) {
	if len(k.ready) == 0 {
		return
	}
	d, l := k.acceptor.dispatcher, k.acceptor.listener
	var away, refused []*balance.PendingConn
	k.actions.offers = k.actions.offers[:0]
	d.mu.Lock()
	for _, p := range k.ready {
		switch {
		case p.Peek == balance.PeekReset || dropped:
			d.balancer.DropPeeking(p, p.Peek == balance.PeekReset)
			k.actions.drops = append(k.actions.drops, p)
		case p.Peek == balance.PeekRefused || p.OnlyTo != 0:
			balance.CountPeek(&l.Counts, p.Peek)
			refused = d.settleJudgedLocked(p, &k.actions, refused)
		case d.balancer.EndPeek(p):
			away = append(away, p)
		default:
			balance.CountPeek(&l.Counts, p.Peek)
			p.At = shm.Monotonic()
		}
	}
	d.updateListenerLocked(&k.actions, l)
	d.mu.Unlock()
	clear(k.ready)
	k.ready = k.ready[:0]
	for _, p := range away {
		traceUnserved(p, errTurnedAway)
		(&acceptedConn{h: p.Handle, fd: p.FD}).turnAway(l.Limits.Answer, &k.acceptor.lingering)
	}
	k.acceptor.quarantine(refused)
	d.run(&k.actions)
}

// look peeks at a connection, and returns its new state. events are those of epoll, or 0.
func (k *peeker) look(p *balance.PendingConn, area *peekBuf, events uint32) balance.PeekState {
	n, err := recvPeek(p.FD, area[:])
	last := n == len(area) || events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
	switch {
	case err == unix.EAGAIN:
		p.Peek = balance.PeekIncomplete
		return p.Peek
	case err != nil:
		p.Peek = balance.PeekReset
		return p.Peek
	case n == 0:
		p.Peek = balance.PeekNoKey // the client has closed its sending half
		k.acceptor.dispatcher.judge(p)
		return p.Peek
	}
	k.place(p, area[:n], last)
	if p.First == "" && k.f.PoisonKey != nil {
		switch key, v := k.poisonKey(area[:n]); {
		case v == netactor.PeekKeyed && key != "":
			p.First = poisonName(k.acceptor.listener.Name, key)
		case v == netactor.PeekMore && !last:
			p.Peek = balance.PeekIncomplete
		}
	}
	if p.Peek != balance.PeekIncomplete {
		k.acceptor.dispatcher.judge(p)
	}
	return p.Peek
}

// poisonKey is the user's, and recovers a panic of it.
func (k *peeker) poisonKey(b []byte) (key string, v netactor.PeekVerdict) {
	defer func() {
		if p := recover(); p != nil {
			k.acceptor.dispatcher.functionFailed(k.acceptor.listener, fmt.Sprint(p))
			key, v = "", netactor.PeekUnkeyed
		}
	}()
	return k.f.PoisonKey(b)
}

// place finds by the first bytes where a connection goes. last is set if no more are looked at.
func (k *peeker) place(p *balance.PendingConn, first []byte, last bool) {
	if !peeks(k.peek) {
		p.Peek = balance.PeekNotNeeded
		return
	}
	s := k.read(first)
	if s.peer.IsValid() {
		p.Peer, p.Local = s.peer, s.local
	}
	switch s.verdict {
	case netactor.PeekKeyed:
		p.Peek, p.Key, p.Keyed = balance.PeekKey, s.key, s.hashed
	case netactor.PeekUnkeyed:
		p.Peek = balance.PeekNoKey
	case netactor.PeekMore:
		p.Peek = balance.PeekIncomplete
		if last {
			p.Peek = balance.PeekNoKey
		}
	default: // not a verdict: from the user's function
		p.Peek = balance.PeekNoKey
	}
}

// read is readPeek, and recovers a panic of the user's function.
func (k *peeker) read(b []byte) (s peekResult) {
	defer func() {
		if p := recover(); p != nil {
			k.acceptor.dispatcher.functionFailed(k.acceptor.listener, fmt.Sprint(p))
			s = peekResult{verdict: netactor.PeekUnkeyed}
		}
	}()
	return readPeek(k.peek, b, k.f.First)
}

// recvPeek is recv(2) that leaves the returned bytes in the socket.
func recvPeek(fd int, b []byte) (int, error) {
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
			unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
		switch e {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}
