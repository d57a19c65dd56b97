package netactor

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestCloses: a close is told when the worker has lived on for a while, and before what it
// asks next; never when it has failed meanwhile.
func TestCloses(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(c *closes)
		want []uint64
	}{
		{"it lives on", func(c *closes) { time.Sleep(closeGrace) }, []uint64{1, 2}},
		{"not yet", func(c *closes) { time.Sleep(closeGrace - 1) }, nil},
		{"it fails", func(c *closes) { c.fail(); time.Sleep(2 * closeGrace) }, nil},
		{"it has failed", func(c *closes) { c.fail(); c.add(3, true); c.flush() }, nil},
		{"it asks for another", func(c *closes) { c.flush() }, []uint64{1, 2}},
		{"it is to stop", func(c *closes) { c.add(3, true) }, []uint64{1, 2, 3}},
		{"each is told once", func(c *closes) { c.flush(); time.Sleep(2 * closeGrace) }, []uint64{1, 2}},
		{"again", func(c *closes) {
			time.Sleep(closeGrace)
			c.add(3, false)
			time.Sleep(closeGrace)
		}, []uint64{1, 2, 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var told []uint64
				c := &closes{tell: func(number uint64) { told = append(told, number) }}
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
