package inflight

import (
	"encoding/binary"
	"encoding/hex"
	"hash/fnv"
	"math"
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
//	32  key     up to 216 bytes
//	248 due     i64: its first deadline, by Now; 0 = none
//
// The memory is touched where slots are used: a page for 16 requests at a time.
type Table struct {
	mem   []byte
	used  [Slots / 64]atomic.Uint64 // the worker's: a bit for each slot
	clock time.Duration             // the kernel's monotonic clock at began
	began time.Time
}

const (
	slotSize = 256
	offBegan = 8
	offKey   = 32
	offDue   = slotSize - 8
	size     = Slots * slotSize
	paged    = 4096 / slotSize // slots of a page

	// Slots is how many requests have one at a time.
	Slots = 1024

	// MaxKey bounds a key, in bytes. A longer one ends in a hash.
	MaxKey = offDue - offKey

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

// TraceID returns the ID of its trace in hex; "" = none.
func (s Served) TraceID() string {
	if s.Trace == [16]byte{} {
		return ""
	}
	return hex.EncodeToString(s.Trace[:])
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

func (t *Table) int64(n, at int) *atomic.Int64 {
	return (*atomic.Int64)(unsafe.Pointer(&t.mem[n*slotSize+at]))
}

// Now returns the kernel's monotonic clock, which is the same in all processes.
func (t *Table) Now() time.Duration { return t.clock + time.Since(t.began) }

// bothClocks returns what two clocks say at one moment. If the process stands still between the two
// looks it looks again, some times, since the difference would be in all deadlines of the process.
func bothClocks(now func() time.Time, monotonic func() (time.Duration, error)) (at time.Duration, began time.Time, err error) {
	const tries = 10
	best := time.Duration(math.MaxInt64)
	for range tries {
		before := now()
		m, err := monotonic()
		if err != nil {
			return 0, time.Time{}, err
		}
		if took := now().Sub(before); took < best {
			best, at, began = took, m, before
		}
		if best < 100*time.Microsecond {
			break
		}
	}
	return at, began, nil
}

// Begin notes a request, which is due at due, and returns the number for End.
func (t *Table) Begin(key []byte, trace [16]byte, began time.Time, due time.Duration) int {
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
			copy(at[16:offKey], trace[:])
			t.int64(n, offBegan).Store(began.UnixNano())
			t.int64(n, offDue).Store(int64(due))
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

// SetDue changes when a request that has not ended is due; 0 = never.
func (t *Table) SetDue(n int, due time.Duration) { t.int64(n, offDue).Store(int64(due)) }

// End notes that a request is answered.
func (t *Table) End(n int) {
	t.state(n).Store(0)
	t.used[n/64].And(^(1 << (n % 64)))
}

// Read returns the requests of a worker that has ended, at most 1,024.
func (t *Table) Read() []Served {
	var all []Served
	for n := range Slots {
		if r, ok := t.Served(Request{N: n, Began: t.int64(n, offBegan).Load()}); ok {
			all = append(all, r)
		}
	}
	return all
}

// Is reports whether the request with a number and a beginning is in flight.
func (t *Table) Is(n int, began int64) bool {
	return t.state(n).Load() == 1 && t.int64(n, offBegan).Load() == began
}

// Served returns what is known of a request; false if it has ended.
func (t *Table) Served(q Request) (r Served, ok bool) {
	r = Served{Key: string(t.Key(q.N)), Began: time.Unix(0, q.Began)}
	copy(r.Trace[:], t.mem[q.N*slotSize+16:])
	return r, t.Is(q.N, q.Began)
}

// InFlight appends the requests of a worker that lives to all. It does not touch pages that were
// never used: slots are taken from the front.
func (t *Table) InFlight(all []Request) []Request {
	for n := range Slots {
		began := t.int64(n, offBegan).Load()
		if t.state(n).Load() == 1 {
			all = append(all, Request{n, began, time.Duration(t.int64(n, offDue).Load())})
		} else if began == 0 && n%paged == paged-1 {
			break
		}
	}
	return all
}
