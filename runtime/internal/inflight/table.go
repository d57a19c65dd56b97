package inflight

import (
	"encoding/binary"
	"hash/fnv"
	"math/bits"
	"sync/atomic"
	"time"
	"unsafe"
)

// A Table is for one worker, which writes it without a system call and without an allocation; the
// master reads it once, when the worker is reaped, and trusts nothing in it. Layout, in the
// machine's byte order: slots of 256 bytes, each
//
//	0   state   u32: 0 free, 1 in flight; written last
//	4   length  u16: of the key
//	8   began   i64: Unix time in nanoseconds
//	16  trace   16 bytes: the ID of its trace; zero = none
//	32  key     up to 224 bytes
//
// The memory is touched where slots are used: a page for 16 requests at a time.
type Table struct {
	mem  []byte
	used [slots / 64]atomic.Uint64 // the worker's: a bit for each slot
}

const (
	slots    = 1024
	slotSize = 256
	offKey   = 32
	size     = slots * slotSize

	// MaxKey bounds a key, in bytes. A longer one ends in a hash.
	MaxKey = slotSize - offKey

	// None is the number of a request that has no slot: beyond 1,024 at a time none is free.
	None = -1
)

// A Served is a request that a worker was serving when it ended. Its key is what the worker has
// written.
type Served struct {
	Key   string
	Began time.Time
	Trace [16]byte
}

// AppendKey appends the key of a request to b, which has room for MaxKey bytes: method and path
// with a space between them, or path alone.
func AppendKey(b []byte, method, path string) []byte {
	if len(method)+1+len(path) <= MaxKey {
		if method != "" {
			b = append(append(b, method...), ' ')
		}
		return append(b, path...)
	}
	h := fnv.New64a()
	h.Write([]byte(method)) // never fails
	h.Write([]byte{' '})
	h.Write([]byte(path))
	const hashed = 1 + 16
	b = append(append(b, method[:min(len(method), MaxKey/2)]...), ' ')
	b = append(b, path[:min(len(path), MaxKey-hashed-len(b))]...)
	const digits = "0123456789abcdef"
	b = append(b, '#')
	for sum, i := h.Sum64(), 60; i >= 0; i -= 4 {
		b = append(b, digits[sum>>i&15])
	}
	return b
}

func (t *Table) state(n int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&t.mem[n*slotSize]))
}

// Begin notes a request, and returns the number for End.
func (t *Table) Begin(key []byte, trace [16]byte, began time.Time) int {
	for i := range t.used {
		for {
			taken := t.used[i].Load()
			free := bits.TrailingZeros64(^taken)
			if free == 64 {
				break
			}
			if !t.used[i].CompareAndSwap(taken, taken|1<<free) {
				continue
			}
			n := i*64 + free
			at := t.mem[n*slotSize:][:slotSize]
			binary.NativeEndian.PutUint16(at[4:], uint16(copy(at[offKey:], key)))
			binary.NativeEndian.PutUint64(at[8:], uint64(began.UnixNano()))
			copy(at[16:offKey], trace[:])
			t.state(n).Store(1)
			return n
		}
	}
	return None
}

// Key returns the key of a request that has not ended. It is valid until End.
func (t *Table) Key(n int) []byte {
	at := t.mem[n*slotSize:][:slotSize]
	return at[offKey:][:min(binary.NativeEndian.Uint16(at[4:]), MaxKey)]
}

// End notes that a request is answered.
func (t *Table) End(n int) {
	t.state(n).Store(0)
	t.used[n/64].And(^(1 << (n % 64)))
}

// Read returns the requests of a worker that has ended, at most 1,024.
func (t *Table) Read() []Served {
	var all []Served
	for n := range slots {
		if t.state(n).Load() != 1 {
			continue
		}
		at := t.mem[n*slotSize:][:slotSize]
		r := Served{Key: string(t.Key(n)), Began: time.Unix(0, int64(binary.NativeEndian.Uint64(at[8:])))}
		copy(r.Trace[:], at[16:])
		all = append(all, r)
	}
	return all
}
