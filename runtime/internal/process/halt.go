package process

import (
	"errors"
	"os"
	"sync/atomic"
	"time"
)

// A halt stops a goroutine that reads a file in a loop, between two reads.
type halt struct{ now atomic.Pointer[pause] }

// A pause is a halt under way.
type pause struct {
	kept chan []byte   // gets what the goroutine has read and not passed on; has room for it
	over chan struct{} // closed at the end
}

// errHalted is the error of a read that a halt has ended.
var errHalted = errors.New("halted")

// prepare begins a halt of a goroutine that does not read yet.
func (h *halt) prepare() *pause {
	p := &pause{kept: make(chan []byte, 1), over: make(chan struct{})}
	h.now.Store(p)
	return p
}

// begin begins a halt of a goroutine that reads f. That sends to kept soon, or ends.
func (h *halt) begin(f *os.File) *pause {
	p := h.prepare()
	_ = f.SetReadDeadline(time.Unix(1, 0)) // fails when f is closed: the goroutine has ended
	return p
}

// end ends a halt, if there is one.
func (h *halt) end(f *os.File) {
	if p := h.now.Swap(nil); p != nil {
		_ = f.SetReadDeadline(time.Time{}) // as above
		close(p.over)
	}
}

// wait is called by the goroutine, between two reads.
func (p *pause) wait(kept []byte) {
	p.kept <- kept
	<-p.over
}
