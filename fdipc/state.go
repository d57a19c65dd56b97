package fdipc

import (
	"fmt"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"github.com/coppice-go/coppice/fdipc/internal/claims"
	"github.com/coppice-go/coppice/fdipc/internal/closer"
)

// The format of a state: what this package writes, and the oldest format whose reader may read it.
// A reader ignores fields that it does not know; so the zero value of a field must mean what was
// the case before there was the field.
const (
	stateFormat = 1
	stateReads  = 1
)

// connState is all that is in the memory of a suspended Conn, as CBOR with these names. The first
// descriptors that belong to it are the control socket, the socket of our data lane, our claim
// table, and if the Conn is ready the socket of the peer's data lane and the peer's claim table.
// Those of handles follow. There is no time in it: a deadline is what is left of it, for the time
// without a process to look does not count, and the bounds of a handshake and of a frame that comes
// in parts begin anew.
type connState struct {
	Format, Reads int

	Ready     bool  // the handshake is over
	Goodbye   bool  // the peer has said it
	PeerGone  bool  // the peer's process has ended
	Credits   int   // what our hello has said
	MaxFrame  int   // likewise
	SendLimit int64 // the lower of both sides' MaxFrame

	Lanes [lanes]laneState

	Seqs    []uint32      // of the last offer in each slot of our claim table
	Offers  []handleState // live
	Stalled bool
	Beat    uint32 // if stalled

	Stats Stats
}

type laneState struct {
	Packets [][]byte   // not taken by the kernel yet, as on the wire
	Part    *partState // of the frame that has not come whole; nil: there is none
}

type partState struct {
	Kind        Kind
	Flags       uint8
	Target      uint64
	Trace       TraceContext `cbor:",omitzero"`
	Payload     []byte
	Handles     []handleState `cbor:",omitempty"`
	HandleCount int
	Lost        uint8
}

// handleState is a handle on offer, ours or the peer's.
type handleState struct {
	File      int // index of its descriptor
	Slot, Seq uint32
	Kind      HandleKind
	Name      []byte       `cbor:",omitempty"`
	Trace     TraceContext `cbor:",omitzero"`
	Accepted  []byte       `cbor:",omitempty"`
	Left      int64        `cbor:",omitempty"` // ours: nanoseconds until it is revoked; 0: never
	Sent      bool         `cbor:",omitempty"` // ours: its packet may have left
}

const (
	baseFiles  = 3 // of a Conn before the end of the handshake
	readyFiles = 5
)

var stateDecoding, _ = cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF}.DecMode() // these options are no error

// state returns the state of a suspended Conn.
func (c *Conn) state() (*connState, []int) {
	s := &connState{
		Format: stateFormat, Reads: stateReads,
		Ready: c.data != nil, Goodbye: c.receivers[Control].goodbye, PeerGone: c.control.gone(),
		Credits: c.cfg.Credits, MaxFrame: c.cfg.MaxFrame, SendLimit: c.maxFrame.Load(), Stats: c.Stats(),
	}
	fds := []int{c.control.fd(), c.dataOut.fd(), c.standIn.fd}
	if s.Ready {
		fds = append(fds, c.data.fd(), c.peerTable.fd)
	}
	save := func(h *Handle, ref offerID) handleState {
		h.mu.Lock()
		defer h.mu.Unlock()
		fds = append(fds, int(h.fd))
		hs := handleState{
			File: len(fds) - 1, Slot: ref.slot, Seq: ref.seq, Kind: h.kind, Name: []byte(h.Name()), Trace: h.Trace,
			Accepted: []byte(h.accepted), Sent: h.wasSent,
		}
		if h.state == handleReceived {
			hs.Kind = h.stated
		}
		return hs
	}
	for i, l := range c.lanes {
		out := &s.Lanes[i]
		l.mu.Lock()
		if l.cur != nil {
			out.Packets = append(out.Packets, l.cur.buf)
		}
		for _, p := range l.queue {
			out.Packets = append(out.Packets, p.buf)
		}
		l.mu.Unlock()
		if t := &c.receivers[i].parts[i]; t.active {
			out.Part = &partState{
				Kind: t.first.kind, Flags: t.first.flags, Target: t.first.target, Trace: t.trace,
				Payload: t.payload, HandleCount: t.handleCount, Lost: t.lost,
			}
			for _, h := range t.handles {
				out.Part.Handles = append(out.Part.Handles, save(h, h.ref))
			}
		}
	}
	o := &c.offers
	o.mu.Lock()
	s.Stalled, s.Beat = o.stalled, o.beatAt
	for _, f := range o.slots {
		s.Seqs = append(s.Seqs, f.seq)
	}
	live, slots, clock := slices.Clone(o.live), o.slots, o.clock
	o.mu.Unlock()
	for _, slot := range live {
		f := &slots[slot]
		hs := save(f.h, offerID{slot, f.seq})
		if f.deadline != 0 {
			hs.Left = max(1, f.deadline-clock)
		}
		s.Offers = append(s.Offers, hs)
	}
	return s, fds
}

// decodeState decodes a state that came with so many descriptors, and checks all that is used
// without a further look. An error names the field.
func decodeState(b []byte, files int) (*connState, error) {
	s := new(connState)
	var head struct{ Format, Reads int }
	err := stateDecoding.Unmarshal(b, &head)
	if err == nil && (head.Reads > stateFormat || head.Format < 1) {
		err = fmt.Errorf("Format is %d, to be read from %d on, and this is %d", head.Format, head.Reads, stateFormat)
	}
	if err == nil {
		err = stateDecoding.Unmarshal(b, s)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	var bad error
	check := func(ok bool, field string, v any) {
		if !ok && bad == nil {
			bad = fmt.Errorf("%w: %s is %v", ErrState, field, v)
		}
	}
	next := baseFiles
	if s.Ready {
		next = readyFiles
	}
	handle := func(field string, h *handleState) {
		check(h.File == next, field+".File", h.File)
		next++
		check(len(h.Name) <= maxName, field+".Name", len(h.Name))
		check(h.Left >= 0, field+".Left", h.Left)
		_, known := decodeAccepted(string(h.Accepted))
		check(len(h.Accepted) == 0 || known, field+".Accepted", h.Accepted)
	}
	check(s.Credits >= 1 && s.Credits <= maxCredits, "Credits", s.Credits)
	check(s.MaxFrame >= 1 && s.MaxFrame <= maxMaxFrame, "MaxFrame", s.MaxFrame)
	check(s.SendLimit >= 0 && s.SendLimit <= maxMaxFrame, "SendLimit", s.SendLimit)
	check(len(s.Seqs) <= s.Credits && (len(s.Seqs) > 0) == s.Ready, "Seqs", len(s.Seqs))
	for i := range s.Lanes {
		field := "Lanes." + Lane(i).String()
		if t := s.Lanes[i].Part; t != nil {
			check(s.Ready, field+".Part", "there")
			check(len(t.Payload) <= Lane(i).limit(s.MaxFrame), field+".Part.Payload", len(t.Payload))
			check(t.HandleCount >= len(t.Handles) && t.HandleCount <= s.Credits, field+".Part.HandleCount", t.HandleCount)
			for j := range t.Handles {
				handle(fmt.Sprintf("%s.Part.Handles.%d", field, j), &t.Handles[j])
			}
		}
		for j, b := range s.Lanes[i].Packets {
			field := fmt.Sprintf("%s.Packets.%d", field, j)
			check(len(b) >= pieceHead && len(b) <= maxPacket, field, len(b))
			_, refs, err := describePacket(b)
			check(err == nil, field, err)
			check(len(refs) <= maxFDs, field, len(refs))
			for _, r := range refs {
				check(int(r.slot) < len(s.Seqs), field+": slot", r.slot)
			}
		}
	}
	live := make(map[uint32]bool)
	for i := range s.Offers {
		h, field := &s.Offers[i], fmt.Sprintf("Offers.%d", i)
		handle(field, h)
		check(int(h.Slot) < len(s.Seqs) && !live[h.Slot] && s.Seqs[h.Slot] == h.Seq, field+".Slot", h.Slot)
		live[h.Slot] = true
		if bad != nil {
			break // Seqs may be too short for the next one
		}
	}
	check(next == files, "the number of descriptors", files)
	return s, bad
}

// describePacket returns how many frames begin in the bytes of a packet, and the offers in it.
func describePacket(b []byte) (frames int, refs []offerID, err error) {
	var p piece
	for len(b) > 0 {
		if b, err = decodePiece(b, &p); err != nil {
			return 0, nil, err
		}
		if p.bits&pieceCont == 0 {
			frames++
		}
		var e handleEntry
		for entries := p.entries; len(entries) > 0; {
			entries = decodeEntry(entries, &e)
			refs = append(refs, offerID{e.slot, e.seq})
		}
	}
	return frames, refs, nil
}

// Restore makes a Conn of what [Conn.Suspend] has returned in the image of the process before this
// one: its state and its descriptors, of which Restore takes ownership, also when it fails. The
// Conn is suspended: until [Conn.Resume] nothing is read, sent or changed that another image would
// find changed, so that Suspend may be called and that image be gone back to.
//
// cfg is this program's. What the two sides have told each other goes on: Credits and MaxFrame of
// cfg are ignored. Ready is called if the handshake is not over.
//
// An offer goes on with the rest of its time; its handle has lost its Tag, and the Go value that it
// was made of. Claimed, its descriptor is closed; refused or returned, it goes to Resolved, or is
// closed without one. Handles that were on their way to a Handler come to the one in cfg. What a
// peer has asked for and the old image has not answered stays unanswered, as a Conn cannot tell a
// request from another frame: what serves requests keeps their numbers, and answers with an error
// of its own. For requests to the peer see [Calls.Restore].
//
// Errors: [ErrState], and those of the system.
func Restore(state []byte, fds []int, cfg Config) (*Conn, error) {
	c, err := restore(state, fds, cfg)
	if err != nil {
		return nil, fmt.Errorf("fdipc: restore: %w", err)
	}
	return c, nil
}

func restore(state []byte, fds []int, cfg Config) (c *Conn, err error) {
	s, err := decodeState(state, len(fds))
	if err == nil {
		cfg.Suspendable, cfg.Credits, cfg.MaxFrame = true, s.Credits, s.MaxFrame
		err = cfg.validate()
	}
	if err == nil {
		c = newConn(cfg)
		err = c.adoptFiles(fds, s)
	} else {
		closeFDs(fds)
	}
	if err != nil {
		return nil, err
	}
	c.offers.callback.Lock() // until resume
	c.pauses = pauses{gate: make(chan struct{}), suspended: true, fresh: true}
	c.ready = s.Ready
	c.maxFrame.Store(s.SendLimit)
	for _, n := range c.stats.list(&s.Stats) {
		n.counter.Store(*n.field)
	}
	r := c.receivers[Control]
	r.goodbye = s.Goodbye
	if !s.Ready {
		r.hello = c.handshake
	}
	if s.PeerGone {
		c.control.drain()
	}
	load := func(hs *handleState, state uint8) *Handle {
		return &Handle{
			state: state, fd: int32(fds[hs.File]), kind: hs.Kind, name: nameOf(string(hs.Name)), Trace: hs.Trace,
			accepted: string(hs.Accepted), wasSent: hs.Sent,
		}
	}
	for i, l := range c.lanes {
		l.suspended, l.refusal = true, ErrSuspended
		for _, b := range s.Lanes[i].Packets {
			p := l.addPacketLocked()
			p.buf = append(p.buf, b...)
			if p.frames, p.refs, _ = describePacket(b); len(p.refs) > 0 {
				p.off = &c.offers
			}
			l.frames += p.frames
			l.bytes += len(b)
		}
		if ps := s.Lanes[i].Part; ps != nil {
			t := &c.receivers[i].parts[i]
			*t = partialFrame{
				active: true, first: pieceHeader{kind: ps.Kind, flags: ps.Flags, target: ps.Target}, trace: ps.Trace,
				payload: ps.Payload, handleCount: ps.HandleCount, lost: ps.Lost,
			}
			for j := range ps.Handles {
				hs := &ps.Handles[j]
				h := load(hs, handleReceived)
				h.kind, h.stated, h.from, h.ref = HandleUnknown, hs.Kind, c, offerID{hs.Slot, hs.Seq}
				t.handles = append(t.handles, h)
			}
			c.held.Add(int64(len(t.handles)))
			t.begin(c)
		}
	}
	if s.Ready {
		c.offers.restore(s, load)
	}
	return c, nil
}

// restore fills in what open has made.
func (o *offerRecord) restore(s *connState, load func(*handleState, uint8) *Handle) {
	o.open(o.c.table, len(s.Seqs))
	o.paused, o.stalled, o.beatAt, o.claimed, o.clockAt = true, s.Stalled, s.Beat, s.Stats.Claimed, now()
	for i, seq := range s.Seqs {
		o.slots[i].seq = seq
	}
	for i := range s.Offers {
		hs := &s.Offers[i]
		f := &o.slots[hs.Slot]
		f.h, f.at, f.deadline = load(hs, handleSent), int32(len(o.live)), hs.Left
		o.live = append(o.live, hs.Slot)
	}
	o.free = slices.DeleteFunc(o.free, func(slot uint32) bool { return o.slots[slot].h != nil })
}

// releaseAll notes that our copies of what the peer has claimed are closed: the exec has closed
// those that the image before has not.
func (c *Conn) releaseAll() {
	o := &c.offers
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, slot := range o.free {
		claims.Place{Table: o.table, Slot: slot, Seq: o.slots[slot].seq}.Release()
	}
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		closer.FD(fd)
	}
}
