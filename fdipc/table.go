package fdipc

import (
	"runtime"
	"sync/atomic"
	"unsafe"
)

// The claim table is memory that both sides of one direction share. It has one word per
// descriptor on offer, and every change of a word is a compare-and-swap of the whole
// word, so that exactly one side wins it:
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
//	128  u32  wake: after how many further attempts the sender wants to hear of them; each takes 1 off, and
//	          the one that reaches 0 sends kindWake
//	192  u64  words: sequence<<32 | reason<<8 | state
//	...  u64  times: when the receiver moved each word on, in Unix nanoseconds, of offers with a trace context
//
// The sender trusts nothing in it: what it offered to whom stands in its own memory.
type table struct {
	magic, slots *uint32
	beat, wake   *atomic.Uint32
	words        []atomic.Uint64
	times        []atomic.Int64
}

const (
	tableMagic = 0x43544343
	tableHead  = 24 // eight-byte units before words
)

// tableLen is the length of a table in units of eight bytes.
func tableLen(slots int) int { return tableHead + 2*slots }

const (
	wordOffered  = 1
	wordClaimed  = 2
	wordRefused  = 3
	wordRevoked  = 4
	wordReleased = 5
)

func word(seq uint32, reason, state uint8) uint64 {
	return uint64(seq)<<32 | uint64(reason)<<8 | uint64(state)
}

// newTable lays a table over m, which the table keeps alive.
func newTable(m []uint64) *table {
	t := tableAt(m)
	*t.magic, *t.slots = tableMagic, uint32(len(t.words))
	return t
}

func tableAt(m []uint64) *table {
	at := func(i int) unsafe.Pointer { return unsafe.Pointer(&m[i]) }
	slots := (len(m) - tableHead) / 2
	return &table{
		magic: (*uint32)(at(0)),
		slots: (*uint32)(unsafe.Add(at(0), 4)),
		beat:  (*atomic.Uint32)(at(8)),
		wake:  (*atomic.Uint32)(at(16)),
		words: unsafe.Slice((*atomic.Uint64)(at(tableHead)), slots),
		times: unsafe.Slice((*atomic.Int64)(at(tableHead+slots)), slots),
	}
}

// The methods keep t reachable to their end: its memory goes when it does.

func (t *table) load(slot uint32) uint64 {
	w := t.words[slot].Load()
	runtime.KeepAlive(t)
	return w
}

func (t *table) store(slot uint32, w uint64) {
	t.words[slot].Store(w)
	runtime.KeepAlive(t)
}

func (t *table) swap(slot uint32, old, new uint64) bool {
	ok := t.words[slot].CompareAndSwap(old, new)
	runtime.KeepAlive(t)
	return ok
}

// time is when the receiver moved slot on, in its own words.
func (t *table) time(slot uint32) int64 {
	at := t.times[slot].Load()
	runtime.KeepAlive(t)
	return at
}

// resolve is the receiver's attempt to move an offer on, at a time that is noted unless it is 0.
// It beats in any case: that it tried is the sign of life.
func (t *table) resolve(slot, seq uint32, reason, state uint8, at int64) (won, wake bool) {
	offered := word(seq, 0, wordOffered)
	if at != 0 && t.words[slot].Load() == offered { // else the time would be another offer's
		t.times[slot].Store(at)
	}
	won = t.words[slot].CompareAndSwap(offered, word(seq, reason, state))
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
