package supervisor

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// persistent is a supervisor of r's children that lets one crash a second pass.
func persistent(children ...ChildSpec) Spec {
	return Spec{
		Intensity: Intensity{Max: 1, Period: 10 * time.Second}, Persist: true,
		Backoff:  Backoff{Initial: time.Second, Max: 4 * time.Second, NoJitter: true, AtOnce: true},
		Children: children,
	}
}

// TestPersistCrashes: children that crash, all of them and again and again, do not end
// the supervisor: within the budget they are back at once, beyond it after a delay, and
// it says so at the first, the second, the fourth time.
func TestPersistCrashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote()
		s := mustStart(t, persistent(r.child("a"), r.child("b")))
		sub := s.Subscribe(256)
		r.end("a", errBoom)
		wantShape(t, s, "a#2, b#1")
		told := 0
		for i := range 7 {
			r.end("a", errBoom)
			if n := s.Snapshot(); n.Find("a").Status != Restarting {
				t.Fatalf("after crash %d: %v", i+2, s.Snapshot())
			}
			time.Sleep(4 * time.Second)
			synctest.Wait()
		}
		wantShape(t, s, "a#9, b#1")
		shutdown(t, s)
		for _, line := range story(t, sub) {
			if strings.HasPrefix(line, "root goes on over its budget: more than 1 restarts in 10s") {
				told++
				if !strings.Contains(line, "root/a: error: boom") || !strings.Contains(line, " 1 up") {
					t.Error(line)
				}
			}
		}
		if told != 3 { // of seven
			t.Errorf("told %d times", told)
		}
	})
}

// TestPersistStarts: one whose starts fail waits for as long as others are up. When none
// has been up for the period of the budget, the supervisor gives up: nothing can live.
func TestPersistStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		r := newRemote()
		a := r.child("a")
		up := a.Start
		a.Start = StarterFunc(func(ctx context.Context, inc Incarnation) (Instance, error) {
			if away.Load() {
				return nil, errBoom
			}
			return up.Start(ctx, inc)
		})
		s := mustStart(t, persistent(a, r.child("b")))
		away.Store(true)
		r.end("a", errBoom)
		time.Sleep(time.Hour)
		wantShape(t, s, "a#1 restarting, b#1")
		away.Store(false)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		wantShape(t, s, "a#2, b#1")
		away.Store(true)
		if err := s.TerminateChild(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		r.end("a", errBoom)
		began := time.Now()
		<-s.Done()
		if took := time.Since(began); took < 10*time.Second || took > 15*time.Second || s.Reason().Kind != GaveUp || !errors.Is(s.Reason().Err(), errBoom) {
			t.Errorf("%v after %v", s.Reason(), took)
		}
	})
}

// TestUsedFalls: what a snapshot shows of the budget is what is used when it is asked for.
func TestUsedFalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote()
		s := mustStart(t, Spec{Intensity: Intensity{Max: 5, Period: 10 * time.Second}, Children: []ChildSpec{r.child("a")}})
		for _, want := range []int{1, 2, 3, 3, 3} {
			r.end("a", errBoom)
			synctest.Wait()
			if n := s.Snapshot(); n.Used != want {
				t.Errorf("%d restarts are used, want %d", n.Used, want)
			}
			time.Sleep(4 * time.Second)
		}
		time.Sleep(7 * time.Second)
		if n := s.Snapshot(); n.Used != 0 {
			t.Errorf("%d restarts are used after more than a period", n.Used)
		}
		shutdown(t, s)
	})
}
