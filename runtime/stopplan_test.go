package coppice

import (
	"testing"
	"time"
)

// TestStopPlan: three stuck children end within the time of the tree, and what one leaves is for
// those after it.
func TestStopPlan(t *testing.T) {
	now := time.Unix(1, 0)
	var plan stopPlan
	ended := map[string]func(){}
	for _, path := range []string{"a", "b", "c"} {
		ended[path] = plan.add(path, 10*time.Second)
	}
	if d := plan.share(now, 10*time.Second); d != 10*time.Second {
		t.Errorf("without a deadline %v", d)
	}
	end := now.Add(10 * time.Second)
	if sum := plan.begin(end); sum != 30*time.Second {
		t.Errorf("sum %v", sum)
	}
	plan.begin(end.Add(time.Hour)) // a later caller of Shutdown has more patience
	for _, path := range []string{"c", "b", "a"} {
		d := plan.share(now, 10*time.Second)
		if d < 3*time.Second || d > 4*time.Second {
			t.Errorf("%s has %v", path, d)
		}
		now = now.Add(d)
		ended[path]()
	}
	if !now.Before(end) {
		t.Errorf("all have ended %v too late", now.Sub(end))
	}

	now = end.Add(-5 * time.Second)
	plan.add("quick", 10*time.Second)()
	plan.add("last", 4*time.Second)
	if d := plan.share(now, 4*time.Second); d != 4*time.Second {
		t.Errorf("there is time, and it has %v", d)
	}
	if d := plan.share(end.Add(time.Second), 4*time.Second); d != 0 {
		t.Errorf("after the end it has %v", d)
	}
}
