package otlp

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"unsafe"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// The table of open spans is memory that a child and its master share, so that it outlives
// the child. The child writes; the master reads it once, when the child has been reaped, and
// trusts nothing in it.
//
//	offset 0      magic   8 bytes
//	       8      taken   u64: payloads of spans that the master has; written by the master
//	       16     high    u32: slots ever used
//	       4096   slots, 1024 bytes each
//
//	slot   0      state   u32: free, open, ended
//	       4      start   u16: length of the record at 16
//	       6      end     u16: length of the record at 416
//	       8      batch   u64: the payload that has the span, from 1; 0 = none yet
//	       16     record of the span at its start, up to 400 bytes
//	       416    record of the span at its end, up to 608 bytes
//
// The numbers are in the machine's byte order. The state is written last, so a kill at any
// point leaves a valid state with its record. record.go has the format of a record.
const (
	tableMagic = 0x31_6e_61_70_73_70_6f_63 // "copspan1"

	offReceived = 8
	offHigh     = 16

	slotBase  = 4096
	slotSize  = 1024
	slotCount = 4096
	tableSize = slotBase + slotCount*slotSize

	offState      = 0
	offStartLen   = 4
	offEndLen     = 6
	offBatch      = 8
	offStart      = 16
	offEnd        = 416
	startRecord   = offEnd - offStart
	endRecord     = slotSize - offEnd
	stateFree     = 0
	stateOpen     = 1
	stateEnded    = 2
	noSlot        = -1
	releaseAtOnce = 64 // payloads looked at for slots to free; see release
)

// tableMemory is a table, mapped.
type tableMemory []byte

func (m tableMemory) word32(at int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&m[at]))
}

func (m tableMemory) word64(at int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&m[at]))
}

func slotAt(i int) int { return slotBase + i*slotSize }

// spanTable is the child's side of a table.
type spanTable struct {
	mem  tableMemory
	full atomic.Uint64 // spans that found no slot

	mu     sync.Mutex
	open   map[trace.SpanID]int
	free   []int // the last one is the next to be used, so that few pages are touched
	high   int
	sent   []sentBatch // payloads whose slots are not free yet, oldest first
	number uint64      // of the newest payload
}

// sentBatch is the slots of the spans of one payload.
type sentBatch struct {
	number uint64
	slots  []int
}

// newSpanTable begins to use a table. It takes ownership of mem.
func newSpanTable(mem tableMemory) *spanTable {
	return &spanTable{mem: mem, open: make(map[trace.SpanID]int)}
}

// start records a span that begins.
func (n *spanTable) start(s sdktrace.ReadOnlySpan) {
	n.mu.Lock()
	n.releaseLocked()
	var i int
	switch last := len(n.free) - 1; {
	case last >= 0:
		i = n.free[last]
		n.free = n.free[:last]
	case n.high < slotCount:
		i = n.high
		n.high++
		n.mem.word32(offHigh).Store(uint32(n.high))
	default:
		n.mu.Unlock()
		n.full.Add(1)
		return
	}
	n.open[s.SpanContext().SpanID()] = i
	n.mu.Unlock()

	at := slotAt(i)
	length := putRecord(n.mem[at+offStart:at+offStart+startRecord], s)
	binary.NativeEndian.PutUint16(n.mem[at+offStartLen:], uint16(length))
	n.mem.word64(at + offBatch).Store(0)
	n.mem.word32(at + offState).Store(stateOpen)
}

// end records the end of a span and returns its slot, or noSlot.
func (n *spanTable) end(s sdktrace.ReadOnlySpan) int {
	id := s.SpanContext().SpanID()
	n.mu.Lock()
	i, ok := n.open[id]
	delete(n.open, id)
	n.mu.Unlock()
	if !ok {
		return noSlot
	}
	at := slotAt(i)
	length := putRecord(n.mem[at+offEnd:at+slotSize], s)
	binary.NativeEndian.PutUint16(n.mem[at+offEndLen:], uint16(length))
	n.mem.word32(at + offState).Store(stateEnded)
	return i
}

// sending is called before the spans of these slots are sent in one payload. The slots must have
// the payload's number before the master can have the payload, else a span could be exported twice.
func (n *spanTable) sending(slots []int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.number++
	for _, i := range slots {
		n.mem.word64(slotAt(i) + offBatch).Store(n.number)
	}
	n.sent = append(n.sent, sentBatch{n.number, slots})
	n.releaseLocked()
}

// refused is called if the newest payload was refused: its spans are lost.
func (n *spanTable) refused() {
	n.mu.Lock()
	defer n.mu.Unlock()
	last := len(n.sent) - 1
	n.freeLocked(n.sent[last].slots)
	n.sent = n.sent[:last]
	n.number--
}

// dropped frees the slots of spans that will not be sent.
func (n *spanTable) dropped(slots ...int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.freeLocked(slots)
}

// releaseLocked frees the slots of spans that the master has received. A span that was sent
// but not received keeps its slot: the master may not read it before the child ends.
func (n *spanTable) releaseLocked() {
	if len(n.sent) == 0 {
		return
	}
	taken := n.mem.word64(offReceived).Load()
	for k := 0; k < releaseAtOnce && len(n.sent) > 0 && n.sent[0].number <= taken; k++ {
		n.freeLocked(n.sent[0].slots)
		n.sent = n.sent[1:]
	}
}

func (n *spanTable) freeLocked(slots []int) {
	for _, i := range slots {
		n.mem.word32(slotAt(i) + offState).Store(stateFree)
		n.free = append(n.free, i)
	}
}

// tableSpan is one span in the table of a child that has ended.
type tableSpan struct {
	record []byte // a copy
	ended  bool
}

// read returns the spans in the table of a child that is dead and of which taken payloads have been
// received. It trusts nothing: each length is checked, and records are copies.
func (m tableMemory) read(taken uint64) []tableSpan {
	if len(m) != tableSize {
		return nil
	}
	var all []tableSpan
	high := min(int(m.word32(offHigh).Load()), slotCount)
	for i := range high {
		at := slotAt(i)
		state := m.word32(at + offState).Load()
		from, limit, length := offStart, startRecord, binary.NativeEndian.Uint16(m[at+offStartLen:])
		switch state {
		case stateOpen:
		case stateEnded:
			if b := m.word64(at + offBatch).Load(); b != 0 && b <= taken {
				continue // it came in a payload
			}
			from, limit, length = offEnd, endRecord, binary.NativeEndian.Uint16(m[at+offEndLen:])
		default:
			continue
		}
		if length == 0 || int(length) > limit {
			continue
		}
		record := append([]byte(nil), m[at+from:at+from+int(length)]...)
		all = append(all, tableSpan{record, state == stateEnded})
	}
	return all
}
