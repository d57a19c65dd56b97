package trunk

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// Bounds of a trunk. docs/constants.md says why.
const (
	baseWindow   = 64 << 10  // credit of a flow
	maxWindow    = 1 << 20   // of a flow of data, while windowBudget has room
	windowBudget = 64 << 20  // for windows beyond the base, of all lanes
	longBudget   = 128 << 20 // for frames in pieces, of all lanes
	maxLanes     = 1024      // open at a time
	queueRoom    = 1 << 20   // waits for the network; then Send waits
	maxQueue     = 1 << 20   // waits for the network of what a peer makes us say; it reads nothing
	readBuffer   = 128 << 10
	writeChunk   = 64 << 10
	goodbye      = time.Second // for what is still queued when a trunk is closed
	lastWait     = time.Second // for what a sink has not taken when the peer has ended the lane
)

// Codes of a goaway.
const (
	goawayClosed    = 0 // by its owner
	goawayDuplicate = 1 // there is a trunk
	goawayRefused   = 2 // another cluster, name, version
	goawayProtocol  = 3
)

// Trunk is a connection to another host. All methods may be called concurrently, and from
// callbacks.
type Trunk struct {
	mesh    *Mesh
	pair    *pair
	conn    net.Conn // with TLS, if there is any
	watch   *watched // below it
	in      *bufio.Reader
	frame   fdipc.Frame // the reader's, to be delivered: one for all
	peer    Host
	number  uint64 // of the trunks between the two hosts, as the lower boot counts
	dialled bool
	since   time.Time

	kick  chan struct{}  // there is something to write
	done  chan struct{}  // closed with why
	over  chan struct{}  // closed after Config.Down
	pumps sync.WaitGroup // flows that wait for sinks, and streams

	mu      sync.Mutex
	why     error // set once: the trunk has ended
	closing error // what it ends with when all is written
	ctl     []byte
	data    []byte
	rest    int     // bytes of data that the writer has
	said    int     // of both, what the peer has made us say
	waiting []*flow // for room in data
	lanes   map[uint32]*Lane
	last    [2]uint32          // the last lane's ID: of the peer, ours
	known   map[*Lane]struct{} // lanes, until their owners know of the end
	uses    uint64             // pieces that went on lanes
	room    chan struct{}      // closed when one of known ends; nil: nothing waits

	windows, long, held int
	reservations        []*reservation

	rtt                   time.Duration
	beat                  uint64 // the last that was sent
	sent, got             uint64
	framesSent, framesGot uint64
	waits                 uint64
}

func newTrunk(m *Mesh, p *pair, c *handshaken) *Trunk {
	t := &Trunk{
		mesh: m, pair: p, conn: c.conn, watch: c.watch, in: c.in, peer: c.hello.host, number: c.number, dialled: c.dialled, since: time.Now(),
		kick: make(chan struct{}, 1), done: make(chan struct{}), over: make(chan struct{}), lanes: make(map[uint32]*Lane), known: make(map[*Lane]struct{}),
	}
	if t.dialled {
		t.last[ours] = ^uint32(0) // the first is 1: those of the side that dialled are odd
	}
	return t
}

// Indices of Trunk.last.
const (
	theirs = 0
	ours   = 1
)

// Peer returns who is at the other end.
func (t *Trunk) Peer() Host { return t.peer }

// Open opens a lane and waits until the peer has accepted it, or until ctx or the trunk ends. info
// goes to the peer's Config.Open, at most 4 KiB; reply is what the peer gave to Lane.Accept. What
// the peer sends waits until Lane.Join.
//
// Errors: a LaneEnd (see errors.As) with the peer's reason if it ended the lane instead; ErrLost;
// fdipc.ErrFull if 1,024 lanes are open; fdipc.ErrTooBig; that of ctx, and then the lane is ended
// with no reason.
func (t *Trunk) Open(ctx context.Context, info []byte) (l *Lane, reply []byte, err error) {
	return t.open(ctx, 0, info)
}

func (t *Trunk) open(ctx context.Context, bits uint8, info []byte) (*Lane, []byte, error) {
	o, err := t.begin(bits, info)
	if err != nil {
		return nil, nil, err
	}
	return o.Wait(ctx)
}

// AskedLane is a lane that the peer has not accepted yet. Wait is to be called.
type AskedLane struct{ l *Lane }

// Begin is Open without the wait: the peer is asked for the lane before it hears of anything that
// follows.
func (t *Trunk) Begin(info []byte) (AskedLane, error) { return t.begin(0, info) }

func (t *Trunk) begin(bits uint8, info []byte) (AskedLane, error) {
	if len(info) > maxText {
		return AskedLane{}, fmt.Errorf("trunk: open: %w", fdipc.ErrTooBig)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.why != nil:
		return AskedLane{}, t.why
	case t.closing != nil:
		return AskedLane{}, t.closing
	case len(t.known) >= t.mesh.cfg.MaxLanes || t.last[ours] >= ^uint32(0)-3 && t.last[ours] != ^uint32(0):
		return AskedLane{}, fmt.Errorf("trunk: open: lanes: %w", fdipc.ErrFull)
	}
	t.last[ours] += 2
	l := t.newLane(t.last[ours])
	t.ctl = appendFrame(t.ctl, typeOpen, bits, l.id, info, nil)
	t.kickLocked()
	return AskedLane{l}, nil
}

// Wait waits as Open does.
func (o AskedLane) Wait(ctx context.Context) (*Lane, []byte, error) {
	l := o.l
	select {
	case reply := <-l.reply:
		return l, reply, nil
	case <-l.over:
		err := l.sendErr()
		l.End(nil)
		return nil, nil, err
	case <-ctx.Done():
		l.End(nil)
		return nil, nil, ctx.Err()
	}
}

// Room returns what is closed when there is room for another lane than there is now.
func (t *Trunk) Room() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.room == nil {
		t.room = make(chan struct{})
	}
	return t.room
}

// Least returns the n lanes on which nothing was sent or came for the longest, and on which none
// was returned for as long, if more than three quarters of all that there can be are open.
// Otherwise it returns none.
func (t *Trunk) Least(n int) []*Lane {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.known) <= t.mesh.cfg.MaxLanes*3/4 {
		return nil
	}
	open := make([]*Lane, 0, len(t.lanes))
	for _, l := range t.lanes {
		if l.accepted {
			open = append(open, l)
		}
	}
	slices.SortFunc(open, func(a, b *Lane) int { return cmp.Compare(a.used, b.used) })
	open = open[:min(n, len(open))]
	for _, l := range open {
		t.usedLocked(l)
	}
	return open
}

// usedLocked notes that something goes on a lane.
func (t *Trunk) usedLocked(l *Lane) {
	t.uses++
	l.used = t.uses
}

// Close ends the trunk, and tells the peer why, at most 4 KiB of it. It does not wait.
func (t *Trunk) Close(reason string) {
	t.close(goawayClosed, reason, fmt.Errorf("%w: closed here: %s", ErrLost, reason))
}

// close ends the trunk with the error why, once what is queued is written, for which there is
// little time.
func (t *Trunk) close(code byte, text string, why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.why != nil || t.closing != nil {
		return
	}
	t.closing = why
	t.data = appendFrame(t.data, typeGoaway, 0, 0, []byte{code}, []byte(text[:min(len(text), maxText)]))
	t.kickLocked()
	t.watch.last(time.Now().Add(goodbye))
}

// Done is closed when the trunk has ended, before its lanes hear of it.
func (t *Trunk) Done() <-chan struct{} { return t.done }

// Stats are the figures of a trunk.
type Stats struct {
	Since                 time.Time     // when it came up
	RTT                   time.Duration // of the last beat that was answered; zero before the first
	Silence               time.Duration // since something came
	Lanes                 int           // that are open, streams included
	Sent, Got             uint64        // bytes, before TLS
	FramesSent, FramesGot uint64        // of lanes
	Waits                 uint64        // Sends that had to wait for credit or room
	Held                  int           // bytes that wait here for sinks
	Queued                int           // bytes that wait here for the network
	Dialled               bool          // by this side
}

// Stats returns the figures of the trunk.
func (t *Trunk) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Stats{
		Since: t.since, RTT: t.rtt, Silence: t.watch.silent(), Lanes: len(t.lanes), Sent: t.sent, Got: t.got,
		FramesSent: t.framesSent, FramesGot: t.framesGot, Waits: t.waits, Held: t.held, Queued: len(t.ctl) + len(t.data) + t.rest, Dialled: t.dialled,
	}
}

// run runs the trunk until it ends, and until nothing of it is left. The Mesh waits for it.
func (t *Trunk) run() {
	var parts sync.WaitGroup
	parts.Go(t.write)
	parts.Go(t.beats)
	t.fail(t.read())
	parts.Wait()
	t.mu.Lock()
	lanes := slices.Collect(maps.Keys(t.known))
	for _, l := range lanes {
		l.endLocked(&LaneEnd{Err: t.why})
		l.dropLocked()
	}
	t.mu.Unlock()
	for _, l := range lanes {
		t.mu.Lock()
		tell := l.tellLocked()
		t.mu.Unlock()
		tell()
	}
	t.pumps.Wait()
}

// fail ends the trunk.
func (t *Trunk) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.why != nil {
		return
	}
	if t.why = t.closing; t.why == nil {
		t.why = fmt.Errorf("%w: %w", ErrLost, err)
		t.watch.abort()
	}
	close(t.done)
	t.watch.Close()
}

// kickLocked wakes the writer.
func (t *Trunk) kickLocked() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// put queues the n bytes of f's payload from at on, as a piece, if there are credit and room. wait
// means that fl.wake is to be told if not. Who has not taken the turn puts nothing while another
// has it.
func (t *Trunk) put(fl *flow, f *fdipc.Frame, at, n int, wait, turn bool) (sent bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if turn {
		fl.taken = true
	} else if fl.taken {
		return false, nil
	}
	if err := fl.lane.sendErrLocked(); err != nil {
		return false, err
	}
	if t.closing != nil {
		return false, t.closing
	}
	to := &t.data
	if f.Lane == fdipc.Control {
		to = &t.ctl
	}
	noRoom := len(*to) >= queueRoom
	if noRoom || fl.credit < overhead+n {
		if wait {
			t.waits++
			if noRoom && !fl.queued {
				fl.queued = true
				t.waiting = append(t.waiting, fl)
			}
		}
		return false, nil
	}
	fl.credit -= overhead + n
	t.usedLocked(fl.lane)
	if at+n == len(f.Payload) {
		t.framesSent++
	}
	*to = appendPiece(*to, fl.lane.id, f, at, n)
	t.kickLocked()
	return true, nil
}

// turnOver gives back the turn.
func (t *Trunk) turnOver(fl *flow) {
	t.mu.Lock()
	fl.taken = false
	t.mu.Unlock()
	<-fl.turn
}

// putCut gives up the frame of which pieces were queued.
func (t *Trunk) putCut(fl *flow, which fdipc.Lane) {
	t.mu.Lock()
	defer t.mu.Unlock()
	to, bits := &t.ctl, uint8(bitContinues|bitCut)
	if which == fdipc.Data {
		to, bits = &t.data, bits|bitData
	}
	if fl.lane.sendErrLocked() == nil {
		*to = appendHeader(*to, 0, typeData, bits, fl.lane.id)
		t.kickLocked()
	}
}

// write writes what is queued: control first, and between two chunks of data.
func (t *Trunk) write() {
	var ctl, data, rest []byte
	for {
		t.mu.Lock()
		ctl, t.ctl = t.ctl, ctl[:0]
		if len(rest) == 0 {
			data, t.data = t.data, data[:0]
			t.said = 0
			rest = data
			for _, fl := range t.waiting {
				fl.queued = false
				fl.poke()
			}
			clear(t.waiting)
			t.waiting = t.waiting[:0]
		}
		chunk := rest[:framesIn(rest, writeChunk)]
		rest = rest[len(chunk):]
		t.rest = len(rest)
		t.sent += uint64(len(ctl) + len(chunk))
		idle, over := len(ctl)+len(chunk) == 0, t.closing != nil
		t.mu.Unlock()
		if idle {
			if over {
				t.watch.closeWrite() // the peer closes; the reader sees that, or the deadline
				return
			}
			select {
			case <-t.kick:
			case <-t.done:
				return
			}
			continue
		}
		for _, b := range [][]byte{ctl, chunk} {
			if len(b) == 0 {
				continue
			}
			if _, err := t.conn.Write(b); err != nil {
				t.fail(err)
				return
			}
		}
	}
}

// framesIn returns the length of the first trunk frames in b: of one, or of as many as have most
// bytes.
func framesIn(b []byte, most int) int {
	n := 0
	for n < len(b) {
		next := n + headerSize + int(binary.LittleEndian.Uint32(b[n:]))
		if n > 0 && next > most {
			break
		}
		n = next
	}
	return n
}

func (fl *flow) poke() {
	select {
	case fl.wake <- struct{}{}:
	default:
	}
}

// beats sends the beats, and moves the time at which the reader gives up.
func (t *Trunk) beats() {
	tick := time.NewTicker(t.mesh.cfg.Silence / 4)
	defer tick.Stop()
	for {
		t.watch.extend()
		t.mu.Lock()
		t.beat = uint64(time.Since(t.since))
		t.ctl = appendFrame(t.ctl, typeBeat, 0, 0, binary.LittleEndian.AppendUint64(nil, t.beat), nil)
		t.kickLocked()
		t.mu.Unlock()
		select {
		case <-tick.C:
		case <-t.done:
			return
		}
	}
}

// read reads and handles trunk frames until the connection ends or the peer breaks a rule.
func (t *Trunk) read() error {
	for {
		h, body, err := readFrame(t.in)
		if err == nil {
			err = t.handle(h, body, t.in.Buffered() > headerSize+h.n+headerSize)
		}
		if err != nil {
			if errors.Is(err, ErrProtocol) {
				t.close(goawayProtocol, err.Error(), fmt.Errorf("%w: %w", ErrLost, err))
				io.Copy(io.Discard, t.watch) //nolint:errcheck // while the goaway is written
			}
			return err
		}
		t.in.Discard(headerSize + h.n) //nolint:errcheck // it was peeked at
	}
}

// readFrame reads a trunk frame and leaves it in the buffer.
func readFrame(in *bufio.Reader) (header, []byte, error) {
	b, err := in.Peek(headerSize)
	if err != nil {
		return header{}, nil, err
	}
	h, err := parseHeader(b)
	if err != nil {
		return h, nil, err
	}
	b, err = in.Peek(headerSize + h.n)
	if err != nil {
		return h, nil, err
	}
	return h, b[headerSize:], nil
}

// handle handles one trunk frame. more means that another one is there already.
func (t *Trunk) handle(h header, body []byte, more bool) error {
	switch h.typ {
	case typeData:
		return t.handleData(h, body, more)
	case typeBeat:
		if len(body) != 8 {
			return protocolError("a beat of %d bytes", len(body))
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.said > maxQueue {
			return protocolError("the peer reads nothing")
		}
		if h.bits&bitAnswer == 0 {
			t.said += headerSize + len(body)
			t.ctl = appendFrame(t.ctl, typeBeat, bitAnswer, 0, body, nil)
			t.kickLocked()
		} else if n := binary.LittleEndian.Uint64(body); n == t.beat {
			t.rtt = time.Since(t.since) - time.Duration(n)
		}
		return nil
	case typeGoaway:
		if len(body) == 0 {
			return protocolError("an empty goaway")
		}
		return fmt.Errorf("the peer closed it: %q", body[1:])
	case typeOpen:
		return t.handleOpen(h, body)
	case typeHello, typeGo:
		return protocolError("type %d out of place", h.typ)
	case typeOpened, typeCredit, typeEnd:
	}
	t.mu.Lock()
	l, err := t.laneLocked(h.lane)
	if l == nil || err != nil {
		t.mu.Unlock()
		return err
	}
	tell := func() {}
	switch h.typ {
	case typeOpened:
		if err = protocolError("lane %d is open", h.lane); !l.accepted && t.opener(h.lane) == ours {
			err, l.accepted = nil, true
			l.reply <- append([]byte(nil), body...)
		}
	case typeCredit:
		fl := &l.flows[flowOf(h.bits)]
		if len(body) != 4 {
			err = protocolError("a credit of %d bytes", len(body))
		} else if n := binary.LittleEndian.Uint32(body); n > maxCredit || fl.credit+int(n) > maxCredit {
			err = protocolError("a credit of %d", n)
		} else {
			fl.credit += int(n)
			fl.poke()
		}
	default: // typeEnd
		end := &LaneEnd{}
		switch {
		case len(body) == 0:
			err = protocolError("an empty end")
		case body[0] == endReason:
			end.Reason = append([]byte{}, body[1:]...)
		default:
			end.Err = fmt.Errorf("%w: %q", ErrRefused, body[1:])
		}
		if err == nil {
			l.endLocked(end)
			l.flows[0].partRes.releaseLocked()
			l.flows[1].partRes.releaseLocked()
			if tell = l.tellLocked(); !l.told {
				time.AfterFunc(t.mesh.cfg.LastWait, l.giveUp)
			}
		}
	}
	t.mu.Unlock()
	tell()
	return err
}

// maxCredit bounds what a peer may allow: a later version's windows may be larger than ours.
const maxCredit = 1 << 30

// opener returns whose lane that is.
func (t *Trunk) opener(id uint32) int {
	if id%2 == 1 == t.dialled {
		return ours
	}
	return theirs
}

// laneLocked returns the lane of that ID, nil if it has ended, and an error if there was none.
func (t *Trunk) laneLocked(id uint32) (*Lane, error) {
	l := t.lanes[id]
	if last := t.last[t.opener(id)]; l == nil && (id > last || last == ^uint32(0)) {
		return nil, protocolError("lane %d was not opened", id)
	}
	return l, nil
}

func (t *Trunk) handleOpen(h header, info []byte) error {
	t.mu.Lock()
	if t.opener(h.lane) == ours || h.lane <= t.last[theirs] {
		t.mu.Unlock()
		return protocolError("lane %d is not the next", h.lane)
	}
	t.last[theirs] = h.lane
	l := t.newLane(h.lane)
	full, tooMuch := len(t.known) > t.mesh.cfg.MaxLanes, t.said > maxQueue
	t.mu.Unlock()
	switch {
	case tooMuch:
		return protocolError("the peer reads nothing")
	case full:
		l.finish(endRefused, []byte("too many lanes"))
	case h.bits&bitStream != 0 && t.mesh.cfg.Stream != nil:
		t.acceptStream(l, string(info))
	case h.bits&bitStream == 0 && t.mesh.cfg.Open != nil:
		t.mesh.cfg.Open(l, info)
	default:
		l.finish(endRefused, []byte("nobody takes it"))
	}
	return nil
}

// handleData handles a frame of a lane, or a piece of one.
func (t *Trunk) handleData(h header, body []byte, more bool) error {
	p, err := parsePiece(h, body)
	if err != nil {
		return err
	}
	cost := overhead + len(p.payload)
	if p.cut {
		cost = 0
	}
	t.mu.Lock()
	t.got += uint64(headerSize + h.n)
	l, err := t.laneLocked(h.lane)
	if l == nil || err != nil {
		t.mu.Unlock()
		return err
	}
	fl := &l.flows[p.frame.Lane]
	t.usedLocked(l)
	fl.room -= cost
	switch {
	case !l.accepted:
		err = protocolError("a frame before lane %d was accepted", h.lane)
	case fl.room < 0:
		err = protocolError("lane %d has no credit for %d bytes", h.lane, cost)
	case !l.dead && p.continues != (fl.part != nil): // what comes for a dead lane is dropped
		err = protocolError("piece of lane %d out of its order", h.lane)
	}
	if err == nil && !p.more && !p.cut {
		t.framesGot++
	}
	if err != nil || l.dead {
		t.mu.Unlock()
		return err
	}
	if !p.more && !p.continues {
		if fl.pumping {
			fl.queueLocked(h, body, len(p.payload), cost)
			t.mu.Unlock()
			return nil
		}
		t.mu.Unlock()
		t.frame = p.frame
		t.frame.Payload, t.frame.More = p.payload, more
		fl.deliver(&t.frame, h, body, cost)
		return nil
	}
	if p.cut {
		pend := fl.partRes.pend
		fl.partRes.releaseLocked()
		fl.part, fl.partRes = nil, nil
		fl.giveLocked(pend)
		t.mu.Unlock()
		return nil
	}
	if !p.continues {
		fl.part, fl.partRes = new(assembly), fl.reserveLocked(p.total)
	}
	res := fl.partRes
	if res.granted {
		fl.giveLocked(cost)
	} else {
		res.pend += cost
	}
	t.mu.Unlock()
	done, err := fl.part.add(p)
	if err != nil || !done {
		return err
	}
	it := item{frame: fl.part.frame, held: len(fl.part.frame.Payload), res: res}
	fl.part = nil
	t.mu.Lock()
	fl.partRes = nil
	if !res.granted { // the window has held it
		it.cost = res.pend
		res.pend = 0
	}
	t.mu.Unlock()
	fl.deliverLong(it)
	return nil
}
