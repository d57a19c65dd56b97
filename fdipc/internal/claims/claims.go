// Package claims has the claim table: memory that both sides of one direction of a channel share,
// in which each descriptor on offer is claimed, refused or taken back by one compare-and-swap. The
// table is specified in docs/protocol.md, section 5.
package claims

import (
	"runtime"
	"sync/atomic"
	"unsafe"
)

// Table has one word per descriptor on offer. Every change of a word is a compare-and-swap of the
// whole word, so that exactly one side wins it:
//
//	offered  -> claimed    by the receiver's application
//	offered  -> refused    by the receiver
//	offered  -> revoked    by the sender, which then owns the descriptor alone
//	claimed  -> released   by the sender, once its own copy is closed
//
// The sequence number in the word is new at each use of a slot, so a receiver that was
// stopped for long and wakes up cannot take the descriptor now offered in that slot.
//
// Layout, in bytes (host byte order: the two sides share a machine):
//
//	  0  u32  magic
//	  4  u32  number of words
//	 64  u32  beat: the receiver adds 1 after each attempt to claim or refuse
//	128  u32  wake: after how many further attempts the sender wants to hear of them; each takes 1
//	          off, and the one that reaches 0 has the receiver send kind 0x04
//	192  u64  words: sequence<<32 | reason<<8 | state
//	...  u64  times: when the receiver moved each word on, in Unix nanoseconds, of offers with a
//	          trace context
//
// The sender trusts nothing in it: what it offered to which peer stands in its own memory.
type Table struct {
	magic, slots *uint32
	beat, wake   *atomic.Uint32
	words        []atomic.Uint64
	times        []atomic.Int64
}

const (
	magic     = 0x43544343
	headUnits = 24 // units of eight bytes before the words
)

// Len returns the length of a table of so many slots, in units of eight bytes.
func Len(slots int) int { return headUnits + 2*slots }

// Valid reports whether a table of at most so many slots can have that length in bytes.
func Valid(size int64, most int) bool {
	n := int(size / 8)
	return size%8 == 0 && n >= Len(1) && n <= Len(most) && (n-headUnits)%2 == 0
}

// States of a word.
const (
	Offered  = 1
	Claimed  = 2
	Refused  = 3
	Revoked  = 4
	Released = 5
)

// Word returns the word of an offer.
func Word(seq uint32, reason, state uint8) uint64 {
	return uint64(seq)<<32 | uint64(reason)<<8 | uint64(state)
}

// Refusal returns the reason if w is a refusal of the offer with that sequence number.
func Refusal(w uint64, seq uint32) (reason uint8, ok bool) {
	return uint8(w >> 8), uint32(w>>32) == seq && w&0xffff00ff == Refused
}

// New lays a new table over m, which the table keeps alive.
func New(m []uint64) *Table {
	t := At(m)
	*t.magic, *t.slots = magic, uint32(len(t.words))
	return t
}

// At returns the table in m, which has a valid length.
func At(m []uint64) *Table {
	at := func(i int) unsafe.Pointer { return unsafe.Pointer(&m[i]) }
	slots := (len(m) - headUnits) / 2
	return &Table{
		magic: (*uint32)(at(0)),
		slots: (*uint32)(unsafe.Add(at(0), 4)),
		beat:  (*atomic.Uint32)(at(8)),
		wake:  (*atomic.Uint32)(at(16)),
		words: unsafe.Slice((*atomic.Uint64)(at(headUnits)), slots),
		times: unsafe.Slice((*atomic.Int64)(at(headUnits+slots)), slots),
	}
}

// Slots returns the number of words.
func (t *Table) Slots() int { return len(t.words) }

// The methods below keep t reachable to their end: its memory goes when it does.

// Magic reports whether the table begins as one does.
func (t *Table) Magic() bool {
	ok := *t.magic == magic
	runtime.KeepAlive(t)
	return ok
}

// Load returns the word of a slot.
func (t *Table) Load(slot uint32) uint64 {
	w := t.words[slot].Load()
	runtime.KeepAlive(t)
	return w
}

// Store sets the word of a slot; it is the sender's, for a slot that is not on offer.
func (t *Table) Store(slot uint32, w uint64) {
	t.words[slot].Store(w)
	runtime.KeepAlive(t)
}

// Swap replaces the word of a slot if it is old, and reports whether it was.
func (t *Table) Swap(slot uint32, old, new uint64) bool {
	ok := t.words[slot].CompareAndSwap(old, new)
	runtime.KeepAlive(t)
	return ok
}

// Time returns when the receiver moved a slot on, by its own word.
func (t *Table) Time(slot uint32) int64 {
	at := t.times[slot].Load()
	runtime.KeepAlive(t)
	return at
}

// Beat returns the receiver's sign of life, which changes with each attempt.
func (t *Table) Beat() uint32 {
	n := t.beat.Load()
	runtime.KeepAlive(t)
	return n
}

// WakeAfter has the receiver wake the sender after n further attempts; 0: not at all.
func (t *Table) WakeAfter(n uint32) {
	t.wake.Store(n)
	runtime.KeepAlive(t)
}

// Resolve is the receiver's attempt to move an offer on, at a time that is noted unless it is 0.
// won reports whether it did; wake, whether the sender is to be woken. It beats in any case: that
// it tried is the sign of life.
func (t *Table) Resolve(slot, seq uint32, reason, state uint8, at int64) (won, wake bool) {
	offered := Word(seq, 0, Offered)
	if at != 0 && t.words[slot].Load() == offered { // else the time would be another offer's
		t.times[slot].Store(at)
	}
	won = t.words[slot].CompareAndSwap(offered, Word(seq, reason, state))
	t.beat.Add(1)
	for w := t.wake.Load(); w != 0; w = t.wake.Load() {
		if t.wake.CompareAndSwap(w, w-1) {
			wake = w == 1
			break
		}
	}
	runtime.KeepAlive(t)
	return won, wake
}

// Place is where an offer stands in a table. The zero value is none.
type Place struct {
	Table     *Table
	Slot, Seq uint32
}

// Held reports whether the sender still has its copy of the descriptor.
func (c Place) Held() bool {
	return c.Table != nil && c.Table.Load(c.Slot) == Word(c.Seq, 0, Claimed)
}

// Release notes that the sender's copy is closed, unless the slot is in use for another offer
// already.
func (c Place) Release() {
	if c.Table != nil {
		c.Table.Swap(c.Slot, Word(c.Seq, 0, Claimed), Word(c.Seq, 0, Released))
	}
}
