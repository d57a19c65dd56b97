package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestStartOrderAndShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote()
		s := mustStart(t, Spec{Name: "app", Strategy: RestForOne, Intensity: Intensity{Max: 3, Period: time.Minute}, Children: []ChildSpec{
			r.child("a"), r.child("b"),
			{ID: "s", Start: Spec{Children: []ChildSpec{{ID: "x", Start: Func(idle)}}}},
		}})
		wantShape(t, s, "a#1, b#1, s#1 [x#1]")
		sub := s.Subscribe(100)
		r.end("b", errBoom)
		wantStory(t, sub,
			"app/b#1 exited: error: boom",
			"app/b#1 restarting: attempt 1, 2 of 3 left, at once",
			"app/s#1 stopping (because of app/b)",
			"app/s/x#1 stopping",
			"app/s/x#1 stopped: shutdown",
			"app/s down: shutdown",
			"app/s#1 stopped: shutdown",
			"app/b#2 started",
			"app/s/x#1 started",
			"app/s up",
			"app/s#2 started (because of app/b)")
		wantShape(t, s, "a#1, b#2, s#2 [x#1]")
		shutdown(t, s)
		wantStory(t, sub,
			"app/s#2 stopping",
			"app/s/x#1 stopping",
			"app/s/x#1 stopped: shutdown",
			"app/s down: shutdown",
			"app/s#2 stopped: shutdown",
			"app/b#2 stopping",
			"app/b#2 stopped: shutdown",
			"app/a#1 stopping",
			"app/a#1 stopped: shutdown",
			"app down: shutdown")
		if _, err := sub.Next(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("Next after the end: %v", err)
		}
		if got := s.Reason().Kind; got != Shutdown {
			t.Errorf("reason %v", got)
		}
		if err := s.Wait(t.Context()); err != nil {
			t.Errorf("Wait: %v", err)
		}
	})
}

func TestStartRollsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		note := func(id string) ChildSpec {
			return ChildSpec{ID: id, Start: Func(func(ctx context.Context) error {
				<-ctx.Done()
				log = append(log, id)
				return nil
			})}
		}
		bad := StarterFunc(func(context.Context, Incarnation) (Instance, error) { return nil, errBoom })
		_, err := Start(t.Context(), Spec{Children: []ChildSpec{
			note("a"), note("b"),
			{ID: "s", Start: Spec{Children: []ChildSpec{note("c"), {ID: "d", Start: bad}}}},
		}}, quiet)
		se, ok := errors.AsType[*StartError](err)
		if !ok || se.Path != "root/s" || !errors.Is(err, errBoom) {
			t.Fatalf("error %v", err)
		}
		if want := "supervisor: root/s/d: start: boom"; err.Error() != want {
			t.Errorf("error %q, want %q", err, want)
		}
		if want := []string{"c", "b", "a"}; !slices.Equal(log, want) {
			t.Errorf("stopped %v, want %v", log, want)
		}
	})
}

func TestStartOutcomes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		start StarterFunc
		want  string
	}{
		{"error", func(context.Context, Incarnation) (Instance, error) { return nil, errBoom }, "boom"},
		{"panic", func(context.Context, Incarnation) (Instance, error) { panic("ouch") }, "panic: ouch"},
		{"nothing", func(context.Context, Incarnation) (Instance, error) { return nil, nil }, errNoInstance.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, err := Start(t.Context(), Spec{Children: []ChildSpec{{ID: "a", Start: tt.start}}}, quiet)
				if err == nil || !strings.HasSuffix(err.Error(), tt.want) {
					t.Errorf("error %v, want %s", err, tt.want)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ignore := StarterFunc(func(context.Context, Incarnation) (Instance, error) { return nil, ErrIgnore })
		s := mustStart(t, Spec{Children: []ChildSpec{{ID: "a", Start: ignore}, {ID: "b", Start: ignore, Restart: Temporary}}})
		wantShape(t, s, "a down")
		shutdown(t, s)
	})
}

func TestStartCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		slow := StarterFunc(func(ctx context.Context, _ Incarnation) (Instance, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		_, err := Start(ctx, Spec{Children: []ChildSpec{{ID: "a", Start: Func(idle)}, {ID: "b", Start: slow}}}, quiet)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}

// TestDriverNeverBlocks: while one child takes 30 s to stop and another 30 s to
// start, others are restarted and calls answered.
func TestDriverNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote()
		began := time.Now()
		slowStop := Func(func(ctx context.Context) error { <-ctx.Done(); time.Sleep(30 * time.Second); return nil })
		slowStart := StarterFunc(func(ctx context.Context, inc Incarnation) (Instance, error) {
			time.Sleep(30 * time.Second)
			return Func(idle).Start(ctx, inc)
		})
		s := mustStart(t, Spec{Intensity: Intensity{Max: 9, Period: time.Second}, Children: []ChildSpec{
			{ID: "slow", Start: slowStop, Shutdown: time.Minute}, r.child("b"), r.child("c"),
		}})
		stopped, started := make(chan error, 1), make(chan error, 1)
		go func() { stopped <- s.TerminateChild(t.Context(), "slow") }()
		go func() {
			_, err := s.StartChild(t.Context(), ChildSpec{ID: "late", Start: slowStart})
			started <- err
		}()
		synctest.Wait()
		r.end("b", errBoom)
		wantShape(t, s, "slow#1 stopping, b#2, c#1, late starting")
		if err := s.TerminateChild(t.Context(), "c"); err != nil {
			t.Error(err)
		}
		if _, err := s.StartChild(t.Context(), ChildSpec{ID: "d", Start: Func(idle)}); err != nil {
			t.Error(err)
		}
		if n, err := s.CountChildren(t.Context()); err != nil || n != (Counts{Specs: 4, Active: 3, Workers: 4}) {
			t.Errorf("count %+v, %v", n, err)
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("all this took %v", d)
		}
		if err := errors.Join(<-stopped, <-started); err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d != 30*time.Second {
			t.Errorf("stop and start took %v", d)
		}
		wantShape(t, s, "slow#1 down, b#2, c#1 down, late#1, d#1")
		shutdown(t, s)
	})
}

func TestCallErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		crash := newRemote()
		var fail atomic.Bool
		flaky := StarterFunc(func(ctx context.Context, inc Incarnation) (Instance, error) {
			if fail.Load() {
				return nil, errBoom
			}
			return crash.child("f").Start.Start(ctx, inc)
		})
		s := mustStart(t, Spec{
			Intensity: Intensity{Max: 9, Period: time.Minute},
			Backoff:   Backoff{Initial: time.Second, NoJitter: true},
			Children:  []ChildSpec{{ID: "a", Start: Func(idle)}, {ID: "d", Start: Func(idle)}, {ID: "f", Start: flaky}},
		})
		check := func(err, want error) {
			t.Helper()
			if !errors.Is(err, want) {
				t.Errorf("error %v, want %v", err, want)
			}
			if _, ok := errors.AsType[*CallError](err); !ok && err != nil {
				t.Errorf("error %T is no CallError", err)
			}
		}
		_, err := s.StartChild(ctx, ChildSpec{ID: "a", Start: Func(idle)})
		check(err, ErrAlreadyStarted)
		_, err = s.RestartChild(ctx, "a")
		check(err, ErrRunning)
		check(s.DeleteChild(ctx, "a"), ErrRunning)
		check(s.TerminateChild(ctx, "zzz"), ErrNotFound)
		_, err = s.RestartChild(ctx, "zzz")
		check(err, ErrNotFound)
		check(s.DeleteChild(ctx, "zzz"), ErrNotFound)
		_, err = s.ChildSpec(ctx, "zzz")
		check(err, ErrNotFound)
		check(s.TerminateChild(ctx, "d"), nil)
		check(s.TerminateChild(ctx, "d"), nil)
		_, err = s.StartChild(ctx, ChildSpec{ID: "d", Start: Func(idle)})
		check(err, ErrAlreadyPresent)
		c, err := s.RestartChild(ctx, "d")
		if check(err, nil); c.Incarnation != 2 || c.Path != "root/d" {
			t.Errorf("child %+v", c)
		}
		_, err = s.StartChild(ctx, ChildSpec{})
		if _, ok := errors.AsType[*SpecError](err); !ok {
			t.Errorf("error %v", err)
		}
		_, err = s.StartChild(ctx, ChildSpec{ID: "n", Start: StarterFunc(func(context.Context, Incarnation) (Instance, error) { return nil, errBoom })})
		check(err, errBoom)
		if se, ok := errors.AsType[*StartError](err); !ok || se.Path != "root/n" {
			t.Errorf("error %v", err)
		}
		check(s.DeleteChild(ctx, "n"), ErrNotFound) // not kept

		// A child that waits for its restart: every call copes.
		fail.Store(true)
		crash.end("f", errBoom)
		wantShape(t, s, "a#1, d#2, f#1 restarting")
		_, err = s.StartChild(ctx, ChildSpec{ID: "f", Start: flaky})
		check(err, ErrAlreadyPresent)
		_, err = s.RestartChild(ctx, "f")
		check(err, ErrRestarting)
		check(s.DeleteChild(ctx, "f"), ErrRestarting)
		check(s.TerminateChild(ctx, "f"), nil)
		time.Sleep(time.Hour)
		wantShape(t, s, "a#1, d#2, f#1 down")
		_, err = s.RestartChild(ctx, "f")
		check(err, errBoom)
		check(s.DeleteChild(ctx, "f"), nil)
		if got, err := s.ChildSpec(ctx, "d"); err != nil || got.ID != "d" {
			t.Errorf("%+v, %v", got, err)
		}
		if got, err := s.WhichChildren(ctx); err != nil || len(got) != 2 || got[1].ID != "d" {
			t.Errorf("%+v, %v", got, err)
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		_, err = s.WhichChildren(gone)
		check(err, context.Canceled)

		shutdown(t, s)
		_, err = s.StartChild(ctx, ChildSpec{ID: "a", Start: Func(idle)})
		check(err, ErrStopped)
		check(s.TerminateChild(ctx, "a"), ErrStopped)
		_, err = s.CountChildren(ctx)
		check(err, ErrStopped)
		_, err = s.ChildSpec(ctx, "a")
		check(err, ErrStopped)
	})
}

func TestDynamic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		r := newRemote()
		s := mustStart(t, Spec{
			Name: "conns", Strategy: Dynamic, Intensity: Intensity{Max: 5, Period: time.Minute},
			Children: []ChildSpec{{ID: "conn", Start: Func(idle), Restart: Transient}},
		})
		for range 3 {
			if _, err := s.StartChild(ctx, ChildSpec{}); err != nil {
				t.Fatal(err)
			}
		}
		c, err := s.StartChild(ctx, ChildSpec{ID: "mine", Start: r.child("mine").Start})
		if err != nil || c.Path != "conns/mine" {
			t.Fatalf("%+v, %v", c, err)
		}
		if _, err := s.StartChild(ctx, ChildSpec{ID: "mine"}); !errors.Is(err, ErrAlreadyStarted) {
			t.Errorf("error %v", err)
		}
		wantShape(t, s, "conn-1#1, conn-2#1, conn-3#1, mine#1")
		r.end("mine", errBoom)
		wantShape(t, s, "conn-1#1, conn-2#1, conn-3#1, mine#2")
		r.end("mine", nil) // transient: ends for good, no spec is kept
		wantShape(t, s, "conn-1#1, conn-2#1, conn-3#1")
		for range 2 { // also when it has ended before
			if err := s.TerminateChild(ctx, "conn-2"); err != nil {
				t.Error(err)
			}
		}
		for _, err := range []error{
			s.TerminateChild(ctx, "conn"), s.TerminateChild(ctx, "conn-99"), s.DeleteChild(ctx, "conn-1"),
		} {
			if !errors.Is(err, ErrDynamic) {
				t.Errorf("error %v", err)
			}
		}
		if _, err := s.RestartChild(ctx, "conn-1"); !errors.Is(err, ErrDynamic) {
			t.Errorf("error %v", err)
		}
		if n, _ := s.CountChildren(ctx); n != (Counts{Specs: 1, Active: 2, Workers: 2}) {
			t.Errorf("count %+v", n)
		}
		shutdown(t, s)
	})
}

// TestDynamicStopsTogether: all copies share one shutdown time.
func TestDynamicStopsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := Func(func(ctx context.Context) error { <-ctx.Done(); time.Sleep(3 * time.Second); return nil })
		s := mustStart(t, Spec{Strategy: Dynamic, Children: []ChildSpec{{ID: "c", Start: slow}}})
		for range 10 {
			if _, err := s.StartChild(t.Context(), ChildSpec{}); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		shutdown(t, s)
		if d := time.Since(began); d != 3*time.Second {
			t.Errorf("took %v", d)
		}
	})
}

// TestStopTogether: children of any strategy share one shutdown time where the spec says so,
// and each is asked and has its own; otherwise their times add up, in reverse order.
func TestStopTogether(t *testing.T) {
	for _, strategy := range []Strategy{OneForOne, OneForAll, RestForOne} {
		for together, want := range map[bool]time.Duration{true: 3 * time.Second, false: 9 * time.Second} {
			t.Run(fmt.Sprintf("%v together %v", strategy, together), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					slow := Func(func(ctx context.Context) error { <-ctx.Done(); time.Sleep(3 * time.Second); return nil })
					s := mustStart(t, Spec{Strategy: strategy, StopTogether: together, Children: []ChildSpec{
						{ID: "a", Start: slow}, {ID: "b", Start: slow}, {ID: "c", Start: slow},
					}})
					began := time.Now()
					shutdown(t, s)
					if d := time.Since(began); d != want {
						t.Errorf("took %v, want %v", d, want)
					}
				})
			})
		}
	}
}

func TestShutdownIsBoundedByContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := mustStart(t, Spec{Children: []ChildSpec{
			{ID: "s", Start: Spec{Children: []ChildSpec{{ID: "x", Start: Func(stuck(release)), Shutdown: Infinity}}}},
		}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		<-s.Done()
		if got := s.Reason().Kind; got != Killed {
			t.Errorf("reason %v", got)
		}
		close(release)
	})
}

func TestKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustStart(t, Spec{Children: []ChildSpec{
			{ID: "a", Start: Func(idle)},
			{ID: "s", Start: Spec{Children: []ChildSpec{{ID: "x", Start: Func(idle)}}}},
		}})
		s.Kill()
		s.Kill()
		<-s.Done()
		if got := s.Wait(t.Context()); got == nil || s.Reason().Kind != Killed {
			t.Errorf("reason %v, %v", s.Reason(), got)
		}
	})
}

func TestSubscriptionLosesTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustStart(t, Spec{Intensity: Intensity{Max: 9, Period: time.Minute}, Children: []ChildSpec{{ID: "a", Start: Func(idle)}}})
		sub := s.Subscribe(2)
		for range 2 {
			if err := s.TerminateChild(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			if _, err := s.RestartChild(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
		}
		ev, err := sub.Next(t.Context()) // stopping, stopped, started, stopping | stopped, started
		if err != nil || ev.Kind != ChildStopped || ev.Lost != 4 || sub.Lost() != 4 {
			t.Errorf("%v, lost %d, %v", ev, sub.Lost(), err)
		}
		if ev, _ = sub.Next(t.Context()); ev.Kind != ChildStarted || ev.Lost != 0 || ev.Incarnation != 3 {
			t.Errorf("%v", ev)
		}
		sub.Close()
		if _, err := sub.Next(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
		shutdown(t, s)
		if _, err := s.Subscribe(1).Next(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
	})
}

// TestSnapshotIsImmutable: what was taken does not change.
func TestSnapshotIsImmutable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustStart(t, Spec{Strategy: Dynamic, Children: []ChildSpec{{ID: "c", Start: Func(idle)}}})
		var shots []string
		var views []*view
		for range 40 { // more than one node of the table
			shots, views = append(shots, shape(s.Snapshot())), append(views, s.view.Load())
			if _, err := s.StartChild(t.Context(), ChildSpec{}); err != nil {
				t.Fatal(err)
			}
		}
		shutdown(t, s)
		for i, v := range views {
			n := v.tree(0)
			if got := shape(n); got != shots[i] {
				t.Fatalf("snapshot %d was %q, is %q", i, shots[i], got)
			}
		}
	})
}

// TestStartTogether: so many children are starting at once, in their order, and no more; the first
// that fails ends the start of the others.
func TestStartTogether(t *testing.T) {
	for _, tt := range []struct {
		together, want int
		fails          bool
	}{{0, 1, false}, {1, 1, false}, {2, 2, false}, {9, 4, false}, {3, 3, true}} {
		t.Run(fmt.Sprint(tt.together, tt.fails), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var starting []string
				var mu sync.Mutex
				release := make(chan error)
				spec := Spec{StartTogether: tt.together}
				for _, id := range []string{"a", "b", "c", "d"} {
					spec.Children = append(spec.Children, ChildSpec{ID: id, Start: StarterFunc(func(ctx context.Context, inc Incarnation) (Instance, error) {
						mu.Lock()
						starting = append(starting, id)
						mu.Unlock()
						select {
						case err := <-release:
							if err != nil {
								return nil, err
							}
						case <-ctx.Done():
							return nil, ctx.Err()
						}
						return Func(func(ctx context.Context) error { <-ctx.Done(); return nil }).Start(context.WithoutCancel(ctx), inc)
					})})
				}
				result := make(chan error, 1)
				go func() {
					s, err := Start(t.Context(), spec, Config{})
					if err == nil {
						s.Stop()
						<-s.Done()
					}
					result <- err
				}()
				synctest.Wait()
				mu.Lock()
				slices.Sort(starting)
				if want := []string{"a", "b", "c", "d"}[:tt.want]; !slices.Equal(starting, want) {
					t.Errorf("%q are starting at once, want %q", starting, want)
				}
				mu.Unlock()
				if tt.fails {
					release <- io.ErrUnexpectedEOF
					if err := <-result; !errors.Is(err, io.ErrUnexpectedEOF) {
						t.Errorf("error %v", err)
					}
					if len(starting) != tt.want {
						t.Errorf("%q were started", starting)
					}
					return
				}
				for range 4 {
					release <- nil
				}
				if err := <-result; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
