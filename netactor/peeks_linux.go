package netactor

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peeks looks at the first bytes of one listener's connections. What is there when a connection is
// accepted the acceptor's goroutine looks at; for the rest run waits, with an epoll of its own.
//
// What was peeked at stays in the socket, so it is readable for ever: the epoll is edge-triggered, and
// tells once for each segment that comes. A client that sends byte by byte costs one look for each,
// maxPeek of them at most.
//
// A connection that is waited for is run's alone, until run brings it onto the books again. So
// nobody closes a descriptor that another looks at. A nil peeks does nothing.
type peeks struct {
	a     *acceptor
	peek  Peek
	f     FirstFunc
	limit int      // connections that may be waited for
	buf   peekArea // of the acceptor's goroutine

	epoll *os.File
	rc    syscall.RawConn

	mu      sync.Mutex
	inbox   []*ticket // to be waited for
	sealed  bool      // none will come any more
	dropped bool      // nobody waits any more: they are to be closed

	// Of run's goroutine.
	own    peekArea
	waits  map[int32]*ticket // by descriptor
	queue  tickets           // the same, oldest first
	ready  []*ticket         // to be brought onto the books
	turn   turn
	events [64]unix.EpollEvent
}

// peekArea is where bytes are looked at.
type peekArea [maxPeek]byte

func newPeeks(a *acceptor, p Peek, f FirstFunc) (*peeks, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // or it would not join the runtime's poller
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("setnonblock", err)
	}
	k := &peeks{
		a: a, peek: p, f: f, limit: min(maxPeeking, max(1, ceiling()/4)),
		epoll: os.NewFile(uintptr(fd), "peeks"), waits: make(map[int32]*ticket),
	}
	if k.rc, err = k.epoll.SyscallConn(); err != nil {
		_ = k.epoll.Close()
		return nil, err
	}
	return k, nil
}

// close is for one whose run was never called.
func (k *peeks) close() {
	if k != nil {
		_ = k.epoll.Close()
	}
}

// first looks at what has come with new connections.
func (k *peeks) first(ts []*ticket) {
	if k == nil {
		return
	}
	for _, t := range ts {
		k.look(t, &k.buf, 0)
	}
}

// await takes over connections that have not said enough. They are on the books.
func (k *peeks) await(ts []*ticket) {
	if k == nil || len(ts) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.inbox = append(k.inbox, ts...)
	k.wakeLocked()
}

// seal says that no more will come: run ends when the last one has said enough.
func (k *peeks) seal() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sealed = true
	k.wakeLocked()
}

// drop makes run close those that are waited for.
func (k *peeks) drop() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dropped = true
	k.wakeLocked()
}

// wakeLocked makes run look at the fields above.
func (k *peeks) wakeLocked() { _ = k.epoll.SetReadDeadline(time.Unix(1, 0)) }

// run waits for first bytes.
func (k *peeks) run() {
	for k.round() {
	}
	_ = k.epoll.Close()
}

// round takes what is new, and looks at who has spoken: however many come, those that wait have their
// turn. It waits if there is nothing to do, and is false when there will be nothing.
func (k *peeks) round() bool {
	k.mu.Lock()
	in, dropped := k.inbox, k.dropped
	k.inbox = nil
	over := k.sealed && len(in) == 0 && k.queue.head == nil
	if len(in) == 0 {
		_ = k.epoll.SetReadDeadline(k.next())
	}
	k.mu.Unlock()
	if over {
		return false
	}
	for _, t := range in {
		k.begin(t)
	}
	n := 0
	switch {
	case len(in) > 0:
		n = k.poll()
	case !dropped || k.queue.head == nil:
		n = k.wait()
	}
	for i := range n {
		e := &k.events[i]
		if t := k.waits[e.Fd]; t != nil && k.look(t, &k.own, e.Events) != seenEarly {
			k.end(t)
		}
	}
	k.expire(dropped)
	k.flush(dropped)
	return true
}

// next is when the first of those that are waited for has had its time.
func (k *peeks) next() time.Time {
	if k.queue.head == nil {
		return time.Time{}
	}
	return time.Now().Add(k.left(k.queue.head))
}

func (k *peeks) left(t *ticket) time.Duration {
	return k.peek.timeout() - time.Duration(monotonic()-t.at)
}

// wait returns the number of events; it is 0 when something else is to be looked at.
func (k *peeks) wait() (n int) {
	_ = k.rc.Read(func(fd uintptr) bool {
		n, _ = unix.EpollWait(int(fd), k.events[:], 0)
		return n > 0
	})
	return max(0, n)
}

// poll is wait without waiting.
func (k *peeks) poll() (n int) {
	_ = k.rc.Control(func(fd uintptr) { n, _ = unix.EpollWait(int(fd), k.events[:], 0) })
	return max(0, n)
}

// begin waits for a connection. One that has said something since it was looked at is an event.
func (k *peeks) begin(t *ticket) {
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | 1<<31, Fd: int32(t.fd)} // EPOLLET
	k.queue.push(t)
	k.waits[e.Fd] = t
	if k.control(unix.EPOLL_CTL_ADD, &e) != nil { // out of memory, or of fs.epoll.max_user_watches
		t.seen = seenOver
		k.end(t)
	}
}

// end takes a connection off the epoll: others will have it too, and then epoll would go on to tell
// of it.
func (k *peeks) end(t *ticket) {
	k.queue.remove(t)
	delete(k.waits, int32(t.fd))
	_ = k.control(unix.EPOLL_CTL_DEL, &unix.EpollEvent{Fd: int32(t.fd)})
	k.ready = append(k.ready, t)
}

func (k *peeks) control(op int, e *unix.EpollEvent) (err error) {
	if cerr := k.rc.Control(func(fd uintptr) { err = unix.EpollCtl(int(fd), op, int(e.Fd), e) }); cerr != nil {
		return cerr
	}
	return err
}

// expire ends the wait for those that have had their time, or for all.
func (k *peeks) expire(all bool) {
	for t := k.queue.head; t != nil && (all || k.left(t) <= 0); t = k.queue.head {
		t.seen = seenLate
		k.end(t)
	}
}

// flush brings those that are no longer waited for onto the books, and offers them.
func (k *peeks) flush(dropped bool) {
	if len(k.ready) == 0 {
		return
	}
	d, l := k.a.d, k.a.l
	var away []*ticket
	k.turn.placed = k.turn.placed[:0]
	d.mu.Lock()
	for _, t := range k.ready {
		switch {
		case t.seen == seenGone || dropped:
			d.books.unpeeked(t, t.seen == seenGone)
			k.turn.dropped = append(k.turn.dropped, t)
		case d.books.peeked(t):
			away = append(away, t)
		default:
			l.counts.saw(t.seen)
			t.at = monotonic()
		}
	}
	d.lookLocked(&k.turn, l)
	d.mu.Unlock()
	clear(k.ready)
	k.ready = k.ready[:0]
	for _, t := range away {
		t.traceUnserved(errTurnedAway)
		(&arrival{h: t.h, fd: t.fd}).turnAway(l.limits.Answer, &k.a.last)
	}
	d.do(&k.turn)
}

// look peeks at a connection, and says how far that has got. events are those of epoll, or 0.
func (k *peeks) look(t *ticket, area *peekArea, events uint32) seen {
	n, err := recvPeek(t.fd, area[:])
	last := n == len(area) || events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
	switch {
	case err == unix.EAGAIN:
		t.seen = seenEarly
		return t.seen
	case err != nil:
		t.seen = seenGone
		return t.seen
	case n == 0:
		t.seen = seenNoKey // it has said all it has to say
		return t.seen
	}
	s := k.read(area[:n])
	if s.peer.IsValid() {
		t.peer, t.local = s.peer, s.local
	}
	switch s.verdict {
	case PeekKeyed:
		t.seen, t.key, t.keyed = seenKey, s.key, s.hashed
	case PeekUnkeyed:
		t.seen = seenNoKey
	case PeekMore:
		t.seen = seenEarly
		if last {
			t.seen = seenNoKey
		}
	default: // a user's function made it up
		t.seen = seenNoKey
	}
	return t.seen
}

// read is Peek.read, and gets over a panic of the user's function.
func (k *peeks) read(b []byte) (s sight) {
	defer func() {
		if p := recover(); p != nil {
			k.a.d.faulty(k.a.l, fmt.Sprint(p))
			s = sight{verdict: PeekUnkeyed}
		}
	}()
	return k.peek.read(b, k.f)
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
