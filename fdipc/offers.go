package fdipc

import (
	"fmt"
	"sync"
	"time"

	"github.com/coppice-go/coppice/fdipc/internal/claims"
	"github.com/coppice-go/coppice/fdipc/internal/closer"
)

// offerRecord is the sender's record of the handles that it has on offer. It holds; the table,
// where the peer answers, is read with distrust.
type offerRecord struct {
	c *Conn

	mu       sync.Mutex
	table    *claims.Table // nil before the handshake
	slots    []offer       // the capacity is fixed by the handshake: zero before it
	free     []uint32
	live     []uint32 // slots in use, in no order
	loaded   int      // offers whose descriptor is in a system call
	idle     sync.Cond
	clock    int64  // what deadlines are measured by: see advanceLocked
	clockAt  int64  // when clock was last moved on
	stalled  bool   // an offer ran out, and the peer has shown no life since
	beatAt   uint32 // the peer's beat, read before the revocation
	resolved []resolution
	credit   chan struct{} // closed when there may be credit; nil if nothing waits
	timer    *time.Timer
	armed    bool
	ended    bool
	paused   bool // the Conn is suspended: nothing changes

	releases []closer.Item // claimed handles whose copies here are to be closed
	claimed  uint64        // ever; under mu like the rest, for it is the common case

	callback sync.Mutex   // held around Resolved, and while the Conn is suspended; never with mu
	reuse    []resolution // empty, for resolved to be filled anew; under callback
}

type offer struct {
	h        *Handle
	seq      uint32
	at       int32 // index in live
	loading  bool
	deadline int64 // by offers.clock; 0: none
}

// tick is how often the table is read while something is on offer and nothing else gives occasion.
// A peer that the sender waits for wakes it.
const tick = 5 * time.Millisecond

func (o *offerRecord) init(c *Conn) {
	o.c = c
	o.idle.L = &o.mu
	o.timer = time.AfterFunc(time.Hour, o.poll)
	o.timer.Stop()
}

// open makes n slots, when the handshake is over.
func (o *offerRecord) open(t *claims.Table, n int) {
	o.mu.Lock()
	o.table = t
	o.slots = make([]offer, n)
	for i := n - 1; i >= 0; i-- {
		o.free = append(o.free, uint32(i))
	}
	o.creditLocked()
	o.mu.Unlock()
}

func (o *offerRecord) creditLocked() {
	if o.credit != nil {
		close(o.credit)
		o.credit = nil
	}
}

// availableLocked is the number of handles that may be offered now.
func (o *offerRecord) availableLocked() int {
	if o.stalled {
		if o.table.Beat() == o.beatAt {
			return 0
		}
		o.stalled = false
	}
	return len(o.free)
}

// reserve offers all of hs and notes their slots in entries, or offers none. After errAgain, wait
// is closed when it is worth another attempt.
func (o *offerRecord) reserve(entries []handleEntry, hs []*Handle, want bool) (wait chan struct{}, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return nil, ErrClosed
	}
	if o.slots != nil && len(hs) > len(o.slots) {
		return nil, fmt.Errorf("%w: %d, at most %d", ErrTooManyHandles, len(hs), len(o.slots))
	}
	t := now()
	o.advanceLocked(t)
	if o.availableLocked() < len(hs) && !o.gatherLocked(len(hs)) {
		if want {
			if o.credit == nil {
				o.credit = make(chan struct{})
			}
			wait = o.credit
		}
		return wait, errAgain
	}
	deadline := int64(0)
	if d := o.c.cfg.ClaimTimeout; d > 0 {
		deadline = o.clock + int64(d)
	}
	for i, h := range hs {
		s := o.free[len(o.free)-1]
		o.free = o.free[:len(o.free)-1]
		f := &o.slots[s]
		f.h, f.seq, f.at, f.deadline = h, f.seq+1, int32(len(o.live)), deadline
		o.live = append(o.live, s)
		o.table.Store(s, claims.Word(f.seq, 0, claims.Offered))
		entries[i].slot, entries[i].seq = s, f.seq
	}
	o.c.stats.offered.Add(uint64(len(hs)))
	o.armLocked(o.c.cfg.tick)
	return nil, nil
}

// gatherLocked looks for answers until n handles may be offered, and reports whether they may. If
// not, the peer will wake this side: when half of what it has is answered, so that a stream costs
// two such messages a window, or when there is enough for n, if that is more.
func (o *offerRecord) gatherLocked(n int) bool {
	o.sweepLocked()
	if o.table == nil { // before the handshake
		return false
	}
	for o.availableLocked() < n {
		after := 1
		if !o.stalled {
			after = max(1, n-len(o.free), len(o.live)/2)
		}
		o.table.WakeAfter(uint32(after))
		o.sweepLocked()                               // what was answered before the peer could see that
		if len(o.live) >= after || len(o.live) == 0 { // so many answers are to come, or late attempts of a stalled peer
			return o.availableLocked() >= n
		}
	}
	return true
}

func (o *offerRecord) armLocked(d time.Duration) {
	if !o.armed && !o.ended {
		o.armed = true
		o.timer.Reset(d)
	}
}

// load puts the descriptors into p, and a stand-in for each that was taken back.
func (o *offerRecord) load(p *packet) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p.attachments = p.attachments[:0]
	for _, r := range p.refs {
		f := &o.slots[r.slot]
		if f.h == nil || f.seq != r.seq {
			p.attachments = append(p.attachments, o.c.standIn)
			continue
		}
		f.loading = true
		f.h.wasSent = true
		if o.c.memory {
			p.attachments = append(p.attachments, attachment{fd: -1, v: contents{f.h.fd, f.h.v}})
		} else {
			p.attachments = append(p.attachments, attachment{fd: int(f.h.fd)})
		}
	}
	o.loaded++
}

func (o *offerRecord) unload(p *packet) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range p.refs {
		if f := &o.slots[r.slot]; f.seq == r.seq && f.h != nil {
			f.loading = false
		}
	}
	if o.loaded--; o.loaded == 0 {
		o.idle.Broadcast()
	}
}
