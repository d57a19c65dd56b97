package pool

import "testing"

// TestSpread (P58): no two slots have the same limit, whatever chance says, and none is
// above what was set or more than the jitter below.
func TestSpread(t *testing.T) {
	for _, slots := range []int{1, 2, 7, 64} {
		last := 1001.0
		for slot := range slots {
			high, low := Spread(1000, 0.2, slot, slots, 0), Spread(1000, 0.2, slot, slots, 0.999999)
			if high >= last || low > high || high > 1000 || low < 800 {
				t.Errorf("slot %d of %d: %v to %v, the one before above %v", slot, slots, low, high, last)
			}
			last = low
		}
	}
}
