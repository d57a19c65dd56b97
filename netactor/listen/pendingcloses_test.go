package listen

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestPendingCloses: a close is reported when the worker has lived on for a while, and before its
// next request; never if the worker has failed before that.
func TestPendingCloses(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(c *pendingCloses)
		want []uint64
	}{
		{"it lives on", func(c *pendingCloses) { time.Sleep(closeGrace) }, []uint64{1, 2}},
		{"not yet", func(c *pendingCloses) { time.Sleep(closeGrace - 1) }, nil},
		{"it fails", func(c *pendingCloses) { c.fail(); time.Sleep(2 * closeGrace) }, nil},
		{"it has failed", func(c *pendingCloses) { c.fail(); c.add(3, true); c.flush() }, nil},
		{"it asks for another", func(c *pendingCloses) { c.flush() }, []uint64{1, 2}},
		{"it is to stop", func(c *pendingCloses) { c.add(3, true) }, []uint64{1, 2, 3}},
		{"each is told once", func(c *pendingCloses) { c.flush(); time.Sleep(2 * closeGrace) }, []uint64{1, 2}},
		{"again", func(c *pendingCloses) {
			time.Sleep(closeGrace)
			c.add(3, false)
			time.Sleep(closeGrace)
		}, []uint64{1, 2, 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var told []uint64
				c := &pendingCloses{send: func(number uint64) { told = append(told, number) }}
				c.add(1, false)
				c.add(2, false)
				tt.do(c)
				synctest.Wait()
				if c.mu.Lock(); !slices.Equal(told, tt.want) {
					t.Errorf("told %v, want %v", told, tt.want)
				}
				c.mu.Unlock()
				c.fail()
			})
		})
	}
}
