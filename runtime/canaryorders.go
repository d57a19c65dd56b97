package coppice

import (
	"slices"
	"sync"
)

// canaryOrders are what humans decide about generations that are being judged. The zero value is
// ready for use, by any goroutine.
type canaryOrders struct {
	mu    sync.Mutex
	wants []chan bool // of each that is being judged, with room for one
}

func (o *canaryOrders) begin() chan bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	ch := make(chan bool, 1)
	o.wants = append(o.wants, ch)
	return ch
}

func (o *canaryOrders) end(ch chan bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wants = slices.DeleteFunc(o.wants, func(c chan bool) bool { return c == ch })
}

// give gives what is being judged an order, and reports whether there is any.
func (o *canaryOrders) give(promote bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, ch := range o.wants {
		select {
		case ch <- promote:
		default: // it has an order
		}
	}
	return len(o.wants) > 0
}
