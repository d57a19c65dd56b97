package fdipc

import (
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc/internal/claims"
)

// The deadline of an offer runs while its sender is there to see an answer. However long the sender
// was stopped, or the whole machine, the peer is not blamed for that.
func TestDeadlineCountsPresence(t *testing.T) {
	cfg := Config{Handler: func(*Conn, *Frame) {}, ClaimTimeout: time.Second, tick: time.Hour}
	if err := cfg.validate(); err != nil {
		t.Fatal(err)
	}
	c := newConn(cfg)
	o := &c.offers
	o.open(claims.New(make([]uint64, claims.Len(4))), 4)
	if _, err := o.reserve(make([]handleEntry, 2), []*Handle{HandleFD(-1), HandleFD(-1)}, false); err != nil {
		t.Fatal(err)
	}
	defer o.timer.Stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	at := now()
	look := func(after time.Duration) (offered int) {
		at += int64(after)
		o.advanceLocked(at)
		o.sweepLocked()
		return len(o.live)
	}
	for range 10 {
		if look(time.Hour) != 2 {
			t.Fatal("revoked after a pause of the sender's own")
		}
	}
	looks := 0
	for look(tick) == 2 {
		if looks++; looks > int(time.Second/tick) {
			t.Fatal("not revoked after the time it may take")
		}
	}
	if least := int((time.Second - 11*maxStep) / tick); looks < least || len(o.live) != 0 || !o.stalled {
		t.Errorf("%d looks, at least %d; %d still on offer, stalled %v", looks, least, len(o.live), o.stalled)
	}
	// Looking often does not make time pass sooner.
	if before := o.clock; look(0) != 0 || o.clock != before {
		t.Errorf("the clock went from %d to %d", before, o.clock)
	}
}

// describe is what the entries of hs are once they are on offer at refs.
func describe(l *lane, hs []*Handle, refs ...offerID) []handleEntry {
	entries := l.describeLocked(hs)
	for i, r := range refs {
		entries[i].slot, entries[i].seq = r.slot, r.seq
	}
	return entries
}

// An offer may run out before its frame is queued. Its handle is then its owner's again, who looks
// at it, names it anew and sends it elsewhere, while the frame is still being written.
func TestOfferRunsOutBeforeItIsQueued(t *testing.T) {
	l := newLane(&Conn{}, Data)
	h := HandleFD(0).Named("before")
	h.Trace[0] = 1
	entries := describe(l, []*Handle{h}, offerID{2, 3})
	h.Named("after").Known(HandleTCP)
	h.Trace = TraceContext{}
	l.putLocked(&Frame{Kind: 0x40, Handles: []*Handle{h}}, entries)
	var pc piece
	if _, err := decodePiece(l.queue[0].buf, &pc); err != nil {
		t.Fatal(err)
	}
	var e handleEntry
	decodeEntry(pc.entries, &e)
	if want := (handleEntry{slot: 2, seq: 3, trace: TraceContext{1}, name: "before"}); e != want {
		t.Errorf("the peer is told %+v, want %+v", e, want)
	}
}

// A sender that waits is told when enough is answered: it asks for half of what is out, or for what
// it needs if that is more, and never for more than can still come.
func TestGather(t *testing.T) {
	const slots = 16
	cfg := Config{Handler: func(*Conn, *Frame) {}, ClaimTimeout: -1, tick: time.Hour}
	if err := cfg.validate(); err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		answered, need int // before it asks
		ok             bool
		after          uint32
	}{
		{answered: 0, need: 1, after: 8},
		{answered: 0, need: 16, after: 16},
		{answered: 4, need: 5, after: 6},
		{answered: 4, need: 16, after: 12},
		{answered: 15, need: 16, after: 1},
		{answered: 16, need: 16, ok: true},
		{answered: 3, need: 3, ok: true},
	}
	for _, row := range rows {
		c := newConn(cfg)
		o := &c.offers
		tbl := claims.New(make([]uint64, claims.Len(slots)))
		o.open(tbl, slots)
		hs := make([]*Handle, slots)
		for i := range hs {
			hs[i] = HandleFD(-1)
		}
		entries := make([]handleEntry, slots)
		if _, err := o.reserve(entries, hs, false); err != nil {
			t.Fatal(err)
		}
		o.timer.Stop()
		for _, r := range entries[:row.answered] {
			if won, wake := tbl.Resolve(r.slot, r.seq, 0, claims.Claimed, 0); !won || wake {
				t.Fatalf("%+v: won %v, wake %v", row, won, wake)
			}
		}
		o.mu.Lock()
		ok := o.gatherLocked(row.need)
		o.mu.Unlock()
		if ok != row.ok {
			t.Errorf("%+v: %v", row, ok)
		}
		told := 0
		for i, r := range entries[row.answered:] {
			if _, wake := tbl.Resolve(r.slot, r.seq, 0, claims.Claimed, 0); wake {
				if told++; uint32(i+1) != row.after {
					t.Errorf("%+v: told after %d", row, i+1)
				}
			}
		}
		if want := map[bool]int{false: 1}[ok]; told != want {
			t.Errorf("%+v: told %d times", row, told)
		}
	}
}
