package trunk

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/coppice-go/coppice/fdipc"
)

// Sink takes the frames of a lane; an [fdipc.Conn] is one. The frame and its payload are borrowed
// until the call returns. For each of its two flows, Control and Data, one call is made at a time.
type Sink interface {
	// TrySend must not block. It returns [fdipc.ErrFull] if there is no room now.
	TrySend(f *fdipc.Frame) error
	// Send is called after ErrFull. It may block until ctx ends, which happens when the lane ends
	// without more to deliver.
	Send(ctx context.Context, f *fdipc.Frame) error
}

// Flusher is a Sink that holds what it has taken. A frame of more than 32 KiB counts as held here
// until Flush returns.
type Flusher interface {
	// Flush waits until nothing is held of what came on a flow, or until ctx ends.
	Flush(ctx context.Context, flow fdipc.Lane) bool
}

// LaneEnd says how a lane ended.
type LaneEnd struct {
	// Reason is what the peer gave to Lane.End, at most 4 KiB; if it ended the lane.
	Reason []byte
	// Err is nil if the peer ended the lane. Otherwise it wraps ErrLost; or ErrRefused if the peer
	// has no use or no room for a lane; or it is the error of the sink: then the peer does not know
	// yet. Until Lane.End the lane counts among the 1,024 of the trunk, but for ErrLost.
	Err error
}

// Error says how the lane ended.
func (e *LaneEnd) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%v: %v", ErrEnded, e.Err)
	}
	return fmt.Sprintf("%v by the peer", ErrEnded)
}

// Unwrap returns ErrEnded, and Err if there is one.
func (e *LaneEnd) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrEnded}
	}
	return []error{ErrEnded, e.Err}
}

// Lane carries frames between a process of this host and one of another. It is a Sink itself: what
// is sent to it goes to the peer's sink. All methods may be called concurrently.
type Lane struct {
	trunk *Trunk
	id    uint32
	flows [2]flow       // by fdipc.Lane
	over  chan struct{} // closed when nothing more can be sent
	reply chan []byte   // of a lane opened here: what the peer accepted it with

	// Of the sink's Send; cancelled when what has come is dropped.
	ctx    context.Context
	cancel context.CancelFunc

	// Guarded by the trunk's mutex.
	accepted bool   // by whichever side did not open it
	used     uint64 // when something went on it last, in uses of the trunk
	sink     Sink   // set by Join, before a flow is no longer pumping
	ended    func(*LaneEnd)
	end      *LaneEnd // to be told, or told
	dead     bool     // what comes, and what has come, is dropped
	told     bool     // ended was called, or need not be
}

// flow is one of the two queues of a lane, in both directions. Its fields are guarded by the
// trunk's mutex where nothing else is said.
type flow struct {
	lane *Lane

	// Sending.
	turn   chan struct{} // has room for him who sends a frame: its pieces are not mixed with another's
	wake   chan struct{} // there may be credit, or room
	credit int
	taken  bool // a sender has the turn
	queued bool // among those that wait for room

	// Receiving.
	window  int // credit of the peer while nothing is held here
	room    int // what the peer may still send
	owed    int // what the sink took and the peer has not been told of
	took    int // the reader's: what the sink took and is not in owed yet
	queue   []item
	pumping bool      // the queue is the pump's, or waits for Join
	large   int       // frames here that have a share of the trunk's memory for long ones
	part    *assembly // the reader's
	partRes *reservation
}

// item waits for the sink: whole frames of one piece as the wire has them, or a long frame.
type item struct {
	raw   []byte
	frame fdipc.Frame
	cost  int          // in credit
	held  int          // bytes of payload
	res   *reservation // of a long frame
}

// chunk is what the memory of frames that wait has at most, but for that of one frame. Between long
// frames it has no more than they take: a peer that sends both in turn is to pay for what it holds.
const chunk = 8 << 10

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// add adds a frame as it came, if it has room for it.
func (it *item) add(h header, body []byte) bool {
	if it.res != nil || len(it.raw) > 0 && len(it.raw)+headerSize+len(body) > chunk {
		return false
	}
	it.raw = appendFrame(it.raw, h.typ, h.bits, h.lane, body, nil)
	return true
}

// queueLocked has a whole frame that came wait for the sink.
func (fl *flow) queueLocked(h header, body []byte, payload, cost int) {
	n := len(fl.queue)
	if n == 0 || !fl.queue[n-1].add(h, body) {
		it := item{}
		if (n == 0 || fl.queue[n-1].res == nil) && headerSize+len(body) <= chunk {
			it.raw = chunks.Get().(*[chunk]byte)[:0]
		}
		it.add(h, body)
		fl.queue = append(fl.queue, it)
		n++
	}
	fl.lane.trunk.held += payload
	fl.queue[n-1].held += payload
	fl.queue[n-1].cost += cost
}

// newLane adds a lane. It is called with the lock.
func (t *Trunk) newLane(id uint32) *Lane {
	l := &Lane{trunk: t, id: id, over: make(chan struct{}), reply: make(chan []byte, 1)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	for i := range l.flows {
		l.flows[i] = flow{
			lane: l, turn: make(chan struct{}, 1), wake: make(chan struct{}, 1),
			credit: baseWindow, window: baseWindow, room: baseWindow, pumping: true,
		}
	}
	t.lanes[id], t.known[l] = l, struct{}{}
	t.usedLocked(l)
	return l
}

// Trunk returns the trunk of the lane.
func (l *Lane) Trunk() *Trunk { return l.trunk }

// Accept tells the opener that the lane is open, with a reply of at most 4 KiB. It is called once,
// before the first Send, for a lane that came to Config.Open.
func (l *Lane) Accept(reply []byte) error {
	if len(reply) > maxText {
		return fmt.Errorf("reply: %w", fdipc.ErrTooBig)
	}
	t := l.trunk
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := l.sendErrLocked(); err != nil {
		return err
	}
	l.accepted = true
	t.ctl = appendFrame(t.ctl, typeOpened, 0, l.id, reply, nil)
	t.kickLocked()
	return nil
}

// Join has what comes on the lane, and what came before, go to sink. It is called once. ended is
// called once, after the last frame, if the lane ends by something else than its End here: from
// Join if it had no frames left by then, else on a goroutine of the trunk. It must not block. A
// sink that does not take what has come before the peer's end gets no more after LastWait.
func (l *Lane) Join(sink Sink, ended func(*LaneEnd)) {
	t := l.trunk
	t.mu.Lock()
	l.sink, l.ended = sink, ended
	for i := range l.flows {
		if fl := &l.flows[i]; len(fl.queue) > 0 && !l.dead {
			t.pumps.Go(fl.pump)
		} else {
			fl.pumping = false
		}
	}
	tell := l.tellLocked()
	t.mu.Unlock()
	tell()
}

// Send sends a frame, and waits for credit and for room as long as it must. The frame must have no
// handles. An error means that the peer does not get it. A nil error says nothing of its arrival.
//
// Errors: ErrEnded, ErrLost, fdipc.ErrTooBig, that of ctx. fdipc.ErrKind if it has handles.
func (l *Lane) Send(ctx context.Context, f *fdipc.Frame) error { return l.send(ctx, f, true) }

// TrySend is Send without waiting: it returns fdipc.ErrFull if it would. A frame of more than 32
// KiB is ErrTooBig here.
func (l *Lane) TrySend(f *fdipc.Frame) error {
	if len(f.Payload) > maxPiece {
		return fdipc.ErrTooBig
	}
	return l.send(context.Background(), f, false)
}

// send sends a frame.
func (l *Lane) send(ctx context.Context, f *fdipc.Frame, wait bool) error {
	if f.Kind < firstKind || f.Lane > fdipc.Data || len(f.Handles) > 0 {
		return fdipc.ErrKind
	}
	if len(f.Payload) > maxFrame || f.Lane == fdipc.Control && len(f.Payload) > maxControlFrame {
		return fdipc.ErrTooBig
	}
	fl := &l.flows[f.Lane]
	if len(f.Payload) <= maxPiece {
		if sent, err := l.trunk.put(fl, f, 0, len(f.Payload), false, false); sent || err != nil {
			return err
		}
	}
	select {
	case fl.turn <- struct{}{}:
	default:
		if !wait {
			return fdipc.ErrFull
		}
		select {
		case fl.turn <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		case <-l.over:
			return l.sendErr()
		}
	}
	defer l.trunk.turnOver(fl)
	for at := 0; ; {
		n := min(len(f.Payload)-at, maxPiece)
		sent, err := l.trunk.put(fl, f, at, n, wait, true)
		if err != nil {
			return err
		}
		if sent {
			if at += n; at == len(f.Payload) {
				return nil
			}
			continue
		}
		if !wait {
			return fdipc.ErrFull
		}
		select {
		case <-fl.wake:
		case <-l.over:
			return l.sendErr()
		case <-ctx.Done():
			if at > 0 {
				l.trunk.putCut(fl, f.Lane)
			}
			return ctx.Err()
		}
	}
}

func (l *Lane) sendErr() error {
	l.trunk.mu.Lock()
	defer l.trunk.mu.Unlock()
	return l.sendErrLocked()
}

// sendErrLocked returns why nothing can be sent on the lane, or nil.
func (l *Lane) sendErrLocked() error {
	select {
	case <-l.over:
	default:
		return nil
	}
	if l.end != nil {
		return l.end
	}
	return ErrEnded
}

// End ends the lane: the peer gets reason, at most 4 KiB, after what was sent before. Frames for
// the sink that are still here are dropped, and its Send is cancelled. It does not wait. Again, or
// after another end, it does nothing.
func (l *Lane) End(reason []byte) { l.finish(endReason, reason) }

// Codes of an end.
const (
	endReason  = 0 // the owner's: its reason follows
	endRefused = 1 // the trunk's: no room for a lane, or no use; text follows
)

func (l *Lane) finish(code byte, reason []byte) {
	t := l.trunk
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.told = true; t.lanes[l.id] == l {
		delete(t.lanes, l.id)
		close(l.over)
		// Behind the lane's data, so without regard to room: it is one for each lane.
		if reason = reason[:min(len(reason), maxText)]; t.opener(l.id) == theirs {
			t.said += headerSize + 1 + len(reason)
		}
		t.data = appendFrame(t.data, typeEnd, 0, l.id, []byte{code}, reason)
		t.kickLocked()
	}
	l.dropLocked()
	l.releaseLocked()
}

// endLocked notes the end that something else than End has brought.
func (l *Lane) endLocked(end *LaneEnd) {
	if l.trunk.lanes[l.id] == l {
		delete(l.trunk.lanes, l.id)
		close(l.over)
	}
	if l.end == nil {
		l.end = end
	}
}

// dropLocked drops what has come. A pump that runs ends.
func (l *Lane) dropLocked() {
	l.dead = true
	l.cancel()
	for i := range l.flows {
		fl := &l.flows[i]
		for _, it := range fl.queue {
			fl.lane.trunk.held -= it.held
			it.res.releaseLocked()
		}
		fl.queue = nil
		fl.partRes.releaseLocked()
	}
}

// releaseLocked gives back the lane's share of what the trunk has for all lanes.
func (l *Lane) releaseLocked() {
	if _, ok := l.trunk.known[l]; !ok {
		return
	}
	delete(l.trunk.known, l)
	if l.trunk.room != nil {
		close(l.trunk.room)
		l.trunk.room = nil
	}
	for i := range l.flows {
		l.trunk.windows -= l.flows[i].window - baseWindow
	}
}

// tellLocked returns what tells the owner of the lane's end, if it has one that is to be told now:
// after Join, when nothing is left to deliver. It is called without the lock.
func (l *Lane) tellLocked() func() {
	if l.end == nil || l.told || l.sink == nil || l.flows[0].pumping || l.flows[1].pumping {
		return func() {}
	}
	l.told = true
	l.cancel()
	if errors.Is(l.end.Err, ErrLost) {
		l.releaseLocked() // otherwise the owner has yet to call End
	}
	if l.ended == nil {
		return func() {}
	}
	return func() { l.ended(l.end) }
}

// deliver hands a whole frame, which is borrowed, to the sink. It is called by the reader while no
// pump runs; if the sink has no room, the frame as it came waits for a pump.
func (fl *flow) deliver(f *fdipc.Frame, h header, body []byte, cost int) {
	l, t := fl.lane, fl.lane.trunk
	err := l.sink.TrySend(f)
	if err == nil {
		if fl.took += cost; fl.took < tookAtOnce {
			return
		}
		cost, fl.took = fl.took, 0
	}
	t.mu.Lock()
	if !errors.Is(err, fdipc.ErrFull) {
		tell := fl.tookLocked(cost, nil, err)
		t.mu.Unlock()
		tell()
		return
	}
	defer t.mu.Unlock()
	if !l.dead {
		fl.queueLocked(h, body, len(f.Payload), cost)
		fl.pumpLocked()
	}
}

// tookAtOnce is up to how much credit the reader does not count yet, for which it would need the
// lock. With a quarter of the window, which the peer is not told of either, a piece still fits.
const tookAtOnce = baseWindow / 8

// deliverLong has a long frame wait for its pump.
func (fl *flow) deliverLong(it item) {
	t := fl.lane.trunk
	t.mu.Lock()
	defer t.mu.Unlock()
	if fl.lane.dead {
		it.res.releaseLocked()
		return
	}
	t.held += it.held
	fl.queue = append(fl.queue, it)
	fl.pumpLocked()
}

// pumpLocked begins a pump if there is none.
func (fl *flow) pumpLocked() {
	if !fl.pumping {
		fl.pumping = true
		fl.lane.trunk.pumps.Go(fl.pump)
	}
}

// pump hands the frames of the queue to the sink, until there are none. The trunk waits for it.
func (fl *flow) pump() {
	l, t := fl.lane, fl.lane.trunk
	t.mu.Lock()
	for len(fl.queue) > 0 && !l.dead {
		it := fl.queue[0]
		fl.queue[0] = item{}
		fl.queue = fl.queue[1:]
		t.mu.Unlock()
		err := it.send(l)
		t.mu.Lock()
		t.held -= it.held
		fl.tookLocked(it.cost, it.res, err)() // nobody is told while pumping
	}
	fl.queue, fl.pumping = nil, false
	tell := l.tellLocked()
	t.mu.Unlock()
	tell()
}

// send hands the frames of an item to the lane's sink.
func (it *item) send(l *Lane) error {
	if it.res != nil {
		err := l.sink.Send(l.ctx, &it.frame)
		if f, holds := l.sink.(Flusher); holds && err == nil {
			f.Flush(l.ctx, it.frame.Lane)
		}
		return err
	}
	for rest := it.raw; len(rest) > 0 && l.ctx.Err() == nil; {
		h, err := parseHeader(rest)
		if err != nil {
			return err
		}
		p, err := parsePiece(h, rest[headerSize:headerSize+h.n])
		if err != nil {
			return err
		}
		rest = rest[headerSize+h.n:]
		p.frame.Payload, p.frame.More = p.payload, len(rest) > 0
		it.frame = p.frame
		if err := l.sink.Send(l.ctx, &it.frame); err != nil {
			return err
		}
	}
	if cap(it.raw) == chunk {
		chunks.Put((*[chunk]byte)(it.raw[:chunk]))
	}
	return nil
}

// giveUp drops what a sink has not taken.
func (l *Lane) giveUp() {
	l.trunk.mu.Lock()
	if !l.told {
		l.dropLocked()
	}
	tell := l.tellLocked()
	l.trunk.mu.Unlock()
	tell()
}

// tookLocked notes what came of a frame that the sink was given, and gives the peer credit for it.
func (fl *flow) tookLocked(cost int, res *reservation, err error) (tell func()) {
	res.releaseLocked()
	l := fl.lane
	if err == nil {
		fl.giveLocked(cost)
	} else if !l.dead {
		l.dropLocked()
		if l.end == nil {
			l.end = &LaneEnd{Err: fmt.Errorf("sink: %w", err)}
		}
	}
	return l.tellLocked()
}

// giveLocked gives the peer credit for cost that is no longer held, a quarter of the window at a
// time.
func (fl *flow) giveLocked(cost int) {
	fl.owed += cost
	if fl.owed < fl.window/4 {
		return
	}
	l, t := fl.lane, fl.lane.trunk
	if t.lanes[l.id] != l {
		return
	}
	var bits uint8
	if fl == &l.flows[fdipc.Data] {
		bits = bitData
		if fl.window == baseWindow && t.windows+maxWindow-baseWindow <= windowBudget {
			fl.window = maxWindow
			t.windows += maxWindow - baseWindow
			fl.owed += maxWindow - baseWindow
		}
	}
	t.ctl = appendCredit(t.ctl, bits, l.id, fl.owed)
	fl.room += fl.owed
	fl.owed = 0
	t.kickLocked()
}

// reservation is the share of a long frame in the trunk's memory for such frames, or waits for it.
// With it the frame's pieces cost no credit while they are held. Guarded by the trunk's mutex.
type reservation struct {
	fl      *flow
	total   int
	pend    int // credit that its pieces have cost before it was granted
	granted bool
	over    bool
}

// reserveLocked asks for the share of a frame of total bytes.
func (fl *flow) reserveLocked(total int) *reservation {
	r := &reservation{fl: fl, total: total}
	fl.lane.trunk.reservations = append(fl.lane.trunk.reservations, r)
	fl.lane.trunk.grantLocked()
	return r
}

// grantLocked grants reservations in their order, but a flow has one at a time, so that a sink
// which takes nothing keeps one share.
func (t *Trunk) grantLocked() {
	kept := t.reservations[:0]
	full := false
	for _, r := range t.reservations {
		switch {
		case r.fl.large > 0:
			kept = append(kept, r)
		case full || t.long+r.total > longBudget:
			full = true
			kept = append(kept, r)
		default:
			r.granted = true
			r.fl.large++
			t.long += r.total
			r.fl.giveLocked(r.pend)
			r.pend = 0
		}
	}
	clear(t.reservations[len(kept):])
	t.reservations = kept
}

// releaseLocked gives the share up, or asks no longer. r may be nil.
func (r *reservation) releaseLocked() {
	if r == nil || r.over {
		return
	}
	r.over = true
	t := r.fl.lane.trunk
	if r.granted {
		r.fl.large--
		t.long -= r.total
	} else {
		for i, o := range t.reservations {
			if o == r {
				t.reservations = append(t.reservations[:i], t.reservations[i+1:]...)
				break
			}
		}
	}
	t.grantLocked()
}
