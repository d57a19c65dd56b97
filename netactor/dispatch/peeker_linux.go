package dispatch

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/balance"
	"github.com/coppice-go/coppice/netactor/internal/peek"
	"github.com/coppice-go/coppice/netactor/internal/shm"
)

// peeker looks at the first bytes of one listener's connections. What is there when a connection is
// accepted the acceptor's goroutine looks at; for the rest run waits, with an epoll of its own.
//
// What was peeked at stays in the socket, so it is readable for ever: the epoll is edge-triggered, and
// tells once for each segment that comes. A client that sends byte by byte costs one look for each,
// peek.MaxBytes of them at most.
//
// A connection that is waited for is run's alone, until run brings it to the balancer again. So
// nobody closes a descriptor that another looks at. A nil peeks does nothing.
type peeker struct {
	acceptor  *acceptor
	peek      netactor.Peek
	f         netactor.FirstFunc
	limit     int     // connections that may be waited for
	acceptBuf peekBuf // of the acceptor's goroutine

	epoll *os.File
	rc    syscall.RawConn

	mu      sync.Mutex
	inbox   []*balance.PendingConn // to be waited for
	sealed  bool                   // none will come any more
	dropped bool                   // nobody waits any more: they are to be closed

	// Of run's goroutine.
	ownBuf  peekBuf
	waits   map[int32]*balance.PendingConn // by descriptor
	queue   balance.ConnList               // the same, oldest first
	ready   []*balance.PendingConn         // to be brought to the balancer
	actions actions
	events  [64]unix.EpollEvent
}

// peekBuf is where bytes are looked at.
type peekBuf [peek.MaxBytes]byte

func newPeeker(a *acceptor, p netactor.Peek, f netactor.FirstFunc) (*peeker, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // or it would not join the runtime's poller
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("setnonblock", err)
	}
	k := &peeker{
		acceptor: a, peek: p, f: f, limit: min(maxPeeking, max(1, ceiling()/4)),
		epoll: os.NewFile(uintptr(fd), "peeks"), waits: make(map[int32]*balance.PendingConn),
	}
	if k.rc, err = k.epoll.SyscallConn(); err != nil {
		_ = k.epoll.Close()
		return nil, err
	}
	return k, nil
}

// close is for one whose run was never called.
func (k *peeker) close() {
	if k != nil {
		_ = k.epoll.Close()
	}
}

// lookAtNew looks at what has come with new connections.
func (k *peeker) lookAtNew(ts []*balance.PendingConn) {
	if k == nil {
		return
	}
	for _, p := range ts {
		k.look(p, &k.acceptBuf, 0)
	}
}

// await takes over connections that have not said enough. They are known to the balancer.
func (k *peeker) await(ts []*balance.PendingConn) {
	if k == nil || len(ts) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.inbox = append(k.inbox, ts...)
	k.wakeLocked()
}

// seal says that no more will come: run ends when the last one has said enough.
func (k *peeker) seal() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sealed = true
	k.wakeLocked()
}

// drop makes run close those that are waited for.
func (k *peeker) drop() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dropped = true
	k.wakeLocked()
}

// wakeLocked makes run look at the fields above.
func (k *peeker) wakeLocked() { _ = k.epoll.SetReadDeadline(time.Unix(1, 0)) }

// run waits for first bytes.
func (k *peeker) run() {
	for k.round() {
	}
	_ = k.epoll.Close()
}

// round takes what is new, and looks at who has spoken: however many come, those that wait have their
// turn. It waits if there is nothing to do, and is false when there will be nothing.
func (k *peeker) round() bool {
	k.mu.Lock()
	in, dropped := k.inbox, k.dropped
	k.inbox = nil
	over := k.sealed && len(in) == 0 && k.queue.Head == nil
	if len(in) == 0 {
		_ = k.epoll.SetReadDeadline(k.next())
	}
	k.mu.Unlock()
	if over {
		return false
	}
	for _, p := range in {
		k.begin(p)
	}
	n := 0
	switch {
	case len(in) > 0:
		n = k.poll()
	case !dropped || k.queue.Head == nil:
		n = k.wait()
	}
	for i := range n {
		e := &k.events[i]
		if p := k.waits[e.Fd]; p != nil && k.look(p, &k.ownBuf, e.Events) != balance.PeekIncomplete {
			k.end(p)
		}
	}
	k.expire(dropped)
	k.flush(dropped)
	return true
}

// next is when the first of those that are waited for has had its time.
func (k *peeker) next() time.Time {
	if k.queue.Head == nil {
		return time.Time{}
	}
	return time.Now().Add(k.left(k.queue.Head))
}

func (k *peeker) left(p *balance.PendingConn) time.Duration {
	return peekTimeout(k.peek) - time.Duration(shm.Monotonic()-p.At)
}

// wait returns the number of events; it is 0 when something else is to be looked at.
func (k *peeker) wait() (n int) {
	_ = k.rc.Read(func(fd uintptr) bool {
		n, _ = unix.EpollWait(int(fd), k.events[:], 0)
		return n > 0
	})
	return max(0, n)
}

// poll is wait without waiting.
func (k *peeker) poll() (n int) {
	_ = k.rc.Control(func(fd uintptr) { n, _ = unix.EpollWait(int(fd), k.events[:], 0) })
	return max(0, n)
}

// begin waits for a connection. One that has said something since it was looked at is an event.
func (k *peeker) begin(p *balance.PendingConn) {
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | 1<<31, Fd: int32(p.FD)} // EPOLLET
	k.queue.Push(p)
	k.waits[e.Fd] = p
	if k.control(unix.EPOLL_CTL_ADD, &e) != nil { // out of memory, or of fs.epoll.max_user_watches
		p.Peek = balance.PeekTooMany
		k.end(p)
	}
}

// end takes a connection off the epoll: others will have it too, and then epoll would go on to tell
// of it.
func (k *peeker) end(p *balance.PendingConn) {
	k.queue.Remove(p)
	delete(k.waits, int32(p.FD))
	_ = k.control(unix.EPOLL_CTL_DEL, &unix.EpollEvent{Fd: int32(p.FD)})
	k.ready = append(k.ready, p)
}

func (k *peeker) control(op int, e *unix.EpollEvent) (err error) {
	if cerr := k.rc.Control(func(fd uintptr) { err = unix.EpollCtl(int(fd), op, int(e.Fd), e) }); cerr != nil {
		return cerr
	}
	return err
}

// expire ends the wait for those that have had their time, or for all.
func (k *peeker) expire(all bool) {
	for p := k.queue.Head; p != nil && (all || k.left(p) <= 0); p = k.queue.Head {
		p.Peek = balance.PeekTimedOut
		k.end(p)
	}
}

// flush brings those that are no longer waited for to the balancer, and offers them.
func (k *peeker) flush(dropped bool) {
	if len(k.ready) == 0 {
		return
	}
	d, l := k.acceptor.dispatcher, k.acceptor.listener
	var away []*balance.PendingConn
	k.actions.offers = k.actions.offers[:0]
	d.mu.Lock()
	for _, p := range k.ready {
		switch {
		case p.Peek == balance.PeekReset || dropped:
			d.balancer.DropPeeking(p, p.Peek == balance.PeekReset)
			k.actions.drops = append(k.actions.drops, p)
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
	d.run(&k.actions)
}

// look peeks at a connection, and says how far that has got. events are those of epoll, or 0.
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
		p.Peek = balance.PeekNoKey // it has said all it has to say
		return p.Peek
	}
	s := k.read(area[:n])
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
	default: // a user's function made it up
		p.Peek = balance.PeekNoKey
	}
	return p.Peek
}

// read is Peek.read, and gets over a panic of the user's function.
func (k *peeker) read(b []byte) (s peekResult) {
	defer func() {
		if p := recover(); p != nil {
			k.acceptor.dispatcher.functionFailed(k.acceptor.listener, fmt.Sprint(p))
			s = peekResult{verdict: netactor.PeekUnkeyed}
		}
	}()
	return readPeek(k.peek, b, k.f)
}

// recvPeek is recv(2) that leaves what it returns where it was.
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
