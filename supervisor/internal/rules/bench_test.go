package rules

import (
	"fmt"
	"strconv"
	"testing"
	"time"
)

// big returns a running supervisor of n children.
func big(tb testing.TB, strategy Strategy, n int) *State {
	ps := make([]Params, n)
	for i := range ps {
		ps[i] = Params{ID: strconv.Itoa(i), Shutdown: DefaultShutdown}
	}
	s := New(Flags{Strategy: strategy, Max: 1 << 40, Period: time.Nanosecond}, ps)
	out := s.Step(0, Event{Kind: Begin})
	for s.Work == InitWork {
		e := out[len(out)-1]
		out = s.Step(0, Event{Kind: Started, Key: e.Key, Run: e.Run})
	}
	if s.Live != n {
		tb.Fatalf("%d run, not %d", s.Live, n)
	}
	return s
}

// crash makes a child fail and plays along until it is up again.
func crash(s *State, now Time, k Key) {
	out := s.Step(now, Event{Kind: Exited, Key: k, Run: s.Children[k].Run, End: Failed})
	for len(out) > 0 {
		ev := Event{}
		for _, e := range out {
			switch e.Kind {
			case Start:
				ev = Event{Kind: Started, Key: e.Key, Run: e.Run}
			case StopInstance:
				ev = Event{Kind: Exited, Key: e.Key, Run: e.Run, End: Shutdown}
			case Cancel, Abandon, KillInstance, SetTimer, Answer, Report, Retry, Moved, Forget, Up, Terminated:
			}
		}
		if ev.Key == 0 {
			return
		}
		out = s.Step(now, ev)
	}
}

// BenchmarkEvent is the cost of one event: a child's failure is two, its end
// and its new start. The cost must not grow with the number of children.
func BenchmarkEvent(b *testing.B) {
	for _, n := range []int{10, 1_000, 100_000} {
		b.Run(fmt.Sprintf("children=%d", n), func(b *testing.B) {
			s := big(b, OneForOne, n)
			b.ReportAllocs()
			now, k := Time(0), Key(0)
			for i := 0; b.Loop(); i++ {
				if i&1 == 0 { // two events an iteration pair: count each
					now++
					k = k%Key(n) + 1
					s.Step(now, Event{Kind: Exited, Key: k, Run: s.Children[k].Run, End: Failed})
				} else {
					s.Step(now, Event{Kind: Started, Key: k, Run: s.Children[k].Run})
				}
			}
		})
	}
}

// BenchmarkRestForOneLast is the failure of the last child under rest_for_one,
// which must not look at those before it.
func BenchmarkRestForOneLast(b *testing.B) {
	for _, n := range []int{10, 1_000, 100_000} {
		b.Run(fmt.Sprintf("children=%d", n), func(b *testing.B) {
			s := big(b, RestForOne, n)
			b.ReportAllocs()
			for now := Time(0); b.Loop(); now++ {
				crash(s, now, Key(n))
			}
		})
	}
}

// BenchmarkHundredThousandCrashes is 100,000 children that crash once each,
// in the rules alone.
func BenchmarkHundredThousandCrashes(b *testing.B) {
	const n = 100_000
	s := big(b, OneForOne, n)
	for now := Time(0); b.Loop(); now++ {
		for k := Key(1); k <= n; k++ {
			crash(s, now, k)
		}
	}
}

// BenchmarkOneForAll is the restart of all of n children because of one.
func BenchmarkOneForAll(b *testing.B) {
	for _, n := range []int{10, 1_000, 100_000} {
		b.Run(fmt.Sprintf("children=%d", n), func(b *testing.B) {
			s := big(b, OneForAll, n)
			for now := Time(0); b.Loop(); now++ {
				crash(s, now, 1)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/child")
		})
	}
}
