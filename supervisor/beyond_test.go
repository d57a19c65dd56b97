package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// This file tests what goes beyond OTP.

func TestFuncReasons(t *testing.T) {
	detail := Exit(Reason{Kind: ShutdownDetail, Detail: "x"})
	for _, tt := range []struct {
		name string
		run  func(context.Context) error
		want string
	}{
		{"nil", func(context.Context) error { return nil }, "normal"},
		{"error", func(context.Context) error { return errBoom }, "error: boom"},
		{"exit", func(context.Context) error { return detail }, "shutdown:x"},
		{"panic", func(context.Context) error { panic(errBoom) }, "panic: boom"},
		{"goexit", func(context.Context) error { runtime.Goexit(); return nil }, "error: " + errGoexit.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i, err := Func(tt.run).Start(t.Context(), Incarnation{})
			if err != nil {
				t.Fatal(err)
			}
			<-i.Done()
			r := i.Reason()
			if r.String() != tt.want {
				t.Errorf("reason %q, want %q", r, tt.want)
			}
			if r.Kind == Panic && (!strings.Contains(r.Stack, "TestFuncReasons") || !errors.Is(r.Err(), errBoom)) {
				t.Errorf("panic: %v\n%s", r.Err(), r.Stack)
			}
			i.Stop()
			i.Kill() // after the end: nothing
			if i.Reason().String() != tt.want || i.Leaked() != nil {
				t.Errorf("reason changed to %v", i.Reason())
			}
		})
	}
	for _, run := range []func(context.Context) error{
		func(ctx context.Context) error { <-ctx.Done(); return nil },
		func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) },
	} {
		i, _ := Func(run).Start(t.Context(), Incarnation{})
		i.Stop()
		<-i.Done()
		if got := i.Reason().Kind; got != Shutdown {
			t.Errorf("after Stop: %v", got)
		}
	}
	i, _ := Func(idle).Start(t.Context(), Incarnation{})
	i.Kill() // not asked before: it has a moment to notice
	<-i.Done()
	if i.Reason().Kind != Killed || i.Leaked() != nil {
		t.Errorf("after Kill: %v, leaked %v", i.Reason(), i.Leaked())
	}
}

func TestLeakedGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		first := stuck(release)
		run := func(ctx context.Context) error {
			if f := first; f != nil {
				first = nil
				return f(ctx)
			}
			return idle(ctx)
		}
		s := mustStart(t, Spec{Children: []ChildSpec{{ID: "a", Start: Func(run), Shutdown: time.Second}, {ID: "b", Start: Func(idle)}}})
		synctest.Wait()
		sub := s.Subscribe(100)
		if err := s.TerminateChild(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		wantStory(t, sub, "root/a#1 stopping", "root/a#1 stopped: killed", "root/a#1 leaked")
		n := s.Snapshot()
		if n.Leaked != 1 || n.Find("a").Leaked != 1 || n.Find("a").Status != Down {
			t.Errorf("%v", n)
		}
		if _, err := s.RestartChild(t.Context(), "a"); err != nil { // by order a second one may run beside it
			t.Fatal(err)
		}
		close(release)
		synctest.Wait()
		if n := s.Snapshot(); n.Leaked != 0 || n.Find("a").Leaked != 0 {
			t.Errorf("%v", n)
		}
		wantStory(t, sub, "root/a#2 started", "root/a#1 leak ended")
		shutdown(t, s)
	})
}

func TestLeakEscalates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := newRemote()
		s := mustStart(t, Spec{Strategy: OneForAll, Leak: LeakGiveUp, Children: []ChildSpec{
			{ID: "a", Start: Func(stuck(release))}, r.child("b"),
		}})
		r.end("b", errBoom) // a is stopped for b's sake, and cannot be
		<-s.Done()
		if got := s.Reason(); got.Kind != GaveUp || got.Detail != "a child leaked" {
			t.Errorf("reason %v", got)
		}
		if n := s.Snapshot(); n.Find("a").Incarnation != 1 {
			t.Errorf("a was started beside what it left:\n%v", n)
		}
		close(release)
	})
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote()
		s := mustStart(t, Spec{
			Intensity: Intensity{Max: 100, Period: time.Minute},
			Backoff:   Backoff{Initial: time.Second, Max: 5 * time.Second, NoJitter: true},
			Children:  []ChildSpec{r.child("a"), r.child("b")},
		})
		delay := func() (d time.Duration) {
			t.Helper()
			n := s.Snapshot()
			a := n.Find("a")
			if a.Status != Restarting || n.Find("b").Status != Running {
				t.Fatalf("%v", n)
			}
			d = time.Until(a.NextAttempt)
			time.Sleep(d)
			synctest.Wait()
			if n = s.Snapshot(); n.Find("a").Status != Running {
				t.Fatalf("after the delay: %v", n)
			}
			return d
		}
		for i, want := range []time.Duration{1, 2, 4, 5, 5} {
			r.end("a", errBoom)
			if got := delay(); got != want*time.Second {
				t.Errorf("delay %d is %v, want %v s", i+1, got, want)
			}
		}
		time.Sleep(10 * time.Second) // healthy for twice the delay, but not longer
		r.end("a", errBoom)
		if got := delay(); got != 5*time.Second {
			t.Errorf("delay %v, want 5 s still", got)
		}
		time.Sleep(10*time.Second + 1)
		r.end("a", errBoom)
		if got := delay(); got != time.Second {
			t.Errorf("delay %v after good health, want 1 s", got)
		}
		r.end("a", errBoom)
		began := time.Now()
		shutdown(t, s) // does not wait for the delay
		if d := time.Since(began); d != 0 {
			t.Errorf("shutdown took %v", d)
		}
	})
}

func TestBackoffOfGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote()
		s := mustStart(t, Spec{
			Strategy:  RestForOne,
			Intensity: Intensity{Max: 100, Period: time.Minute},
			Backoff:   Backoff{Initial: time.Second, NoJitter: true},
			Children:  []ChildSpec{r.child("a"), r.child("b"), r.child("c")},
		})
		r.end("b", errBoom) // c is stopped at once, and started after the delay
		wantShape(t, s, "a#1, b#1 restarting, c#1 down")
		time.Sleep(time.Second - 1)
		wantShape(t, s, "a#1, b#1 restarting, c#1 down")
		time.Sleep(time.Nanosecond)
		wantShape(t, s, "a#1, b#2, c#2")
		r.end("b", errBoom)
		r.end("a", errBoom) // while b waits
		wantShape(t, s, "a#1 restarting, b#2 down, c#2 down")
		time.Sleep(2 * time.Second)
		wantShape(t, s, "a#2, b#3, c#3")
		shutdown(t, s)
	})
}

func TestBackoffAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustStart(t, Spec{
			Intensity: Intensity{Max: 100, Period: time.Second},
			Backoff:   Backoff{Initial: time.Second, Attempts: 3, NoJitter: true},
			Children:  []ChildSpec{{ID: "a", Start: Func(func(context.Context) error { return errBoom })}},
		})
		<-s.Done()
		r := s.Reason()
		if r.Kind != GaveUp || r.Detail != "root/a failed 4 times in a row" || !errors.Is(r.Err(), errBoom) {
			t.Errorf("reason %v, %v", r, r.Err())
		}
	})
}

// TestGaveUpIsNoticed: a transient supervisor that gave up is restarted; in OTP
// mode it stays down, as in recording O67.
func TestGaveUpIsNoticed(t *testing.T) {
	for _, otp := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRemote()
			s := mustStart(t, Spec{Children: []ChildSpec{{ID: "s", Restart: Transient, Start: Spec{
				OTP: otp, Intensity: Intensity{Period: time.Second}, Children: []ChildSpec{r.child("x")},
			}}}})
			r.end("x", errBoom)
			want := "s#2 [x#1]"
			if otp {
				want = "s#1 down"
			}
			wantShape(t, s, want)
			n := s.Snapshot()
			kind := n.Find("s").LastExit.Kind
			if otp && kind != Shutdown || !otp && kind != GaveUp {
				t.Errorf("OTP %v: last exit %v", otp, kind)
			}
			shutdown(t, s)
		})
	}
}

// TestEscalationIsLogged: the restart of a supervisor that gave up is in the log.
func TestEscalationIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote()
		var log strings.Builder
		s, err := Start(t.Context(), Spec{Name: "root", Children: []ChildSpec{{ID: "s", Start: Spec{
			Intensity: Intensity{Period: time.Second}, Children: []ChildSpec{r.child("x")},
		}}}}, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		r.end("x", errBoom)
		wantShape(t, s, "s#2 [x#1]")
		shutdown(t, s)
		if want := `msg="supervisor: restarting" path=root/s incarnation=1 attempt=1 left=0 max=1`; !strings.Contains(log.String(), want) {
			t.Errorf("%s is missing in\n%s", want, &log)
		}
	})
}

// TestReadiness: with rest_for_one no child starts before those it depends on
// are ready, and a start that takes too long has failed.
func TestReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote()
		wait := 10 * time.Second
		slow := StarterFunc(func(ctx context.Context, inc Incarnation) (Instance, error) {
			select {
			case <-time.After(wait):
				return Func(idle).Start(ctx, inc)
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		})
		s := mustStart(t, Spec{Strategy: RestForOne, Intensity: Intensity{Max: 2, Period: time.Hour}, Children: []ChildSpec{
			r.child("a"), {ID: "b", Start: slow, StartTimeout: 20 * time.Second}, r.child("c"),
		}})
		r.end("a", errBoom)
		time.Sleep(9 * time.Second)
		wantShape(t, s, "a#2, b#1 restarting, c#1 down") // c waits for b's readiness
		time.Sleep(time.Second)
		wantShape(t, s, "a#2, b#2, c#2")
		wait = time.Hour
		r.end("a", errBoom)
		sub := s.Subscribe(9)
		time.Sleep(20 * time.Second) // not for ever: the limit, and the budget is used up
		<-s.Done()
		gaveUp := "gave up: more than 2 restarts in 1h0m0s: supervisor: root/b: start: start timed out"
		wantStory(t, sub,
			"root/b#3 start failed: error: start timed out",
			"root/b#2 restarting: attempt 1, 0 of 2 left, at once",
			"root "+gaveUp+" (because of root/b)",
			"root/a#3 stopping (because of root/b)", "root/a#3 stopped: shutdown",
			"root down: "+gaveUp)
		if r := s.Reason(); !errors.Is(r.Err(), ErrStartTimeout) {
			t.Errorf("reason %v", r.Err())
		}
	})
}

// TestAbandonedStart: a start that does not react to the end of its context is
// abandoned, and killed should it come up after all.
func TestAbandonedStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late := make(chan Instance, 1)
		deaf := StarterFunc(func(ctx context.Context, inc Incarnation) (Instance, error) {
			time.Sleep(time.Minute)
			i, err := Func(idle).Start(ctx, inc)
			late <- i
			return i, err
		})
		s := mustStart(t, Spec{})
		sub := s.Subscribe(9)
		_, err := s.StartChild(t.Context(), ChildSpec{ID: "a", Start: deaf, StartTimeout: time.Second})
		if !errors.Is(err, ErrStartTimeout) {
			t.Errorf("error %v", err)
		}
		if n := s.Snapshot(); n.Leaked != 1 {
			t.Errorf("%v", n)
		}
		time.Sleep(time.Minute)
		i := <-late
		<-i.Done()
		if i.Reason().Kind != Killed {
			t.Errorf("late instance: %v", i.Reason())
		}
		wantStory(t, sub, "root/a#1 start failed: error: start timed out", "root/a leaked", "root/a removed", "root/a leak ended")
		if n := s.Snapshot(); n.Leaked != 0 {
			t.Errorf("%v", n)
		}
		shutdown(t, s)
	})
}

// TestTerminateCancelsStart: no call waits for a start that is to be terminated.
func TestTerminateCancelsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := StarterFunc(func(ctx context.Context, _ Incarnation) (Instance, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		s := mustStart(t, Spec{})
		started := make(chan error, 1)
		go func() {
			_, err := s.StartChild(t.Context(), ChildSpec{ID: "a", Start: slow})
			started <- err
		}()
		synctest.Wait()
		if err := s.TerminateChild(t.Context(), "a"); !errors.Is(err, ErrNotFound) {
			t.Errorf("error %v", err) // after the failed start there is no such child
		}
		if err := <-started; !errors.Is(err, ErrStartCancelled) {
			t.Errorf("error %v", err)
		}
		shutdown(t, s)
	})
}
