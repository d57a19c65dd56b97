package supervisor

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"
)

// BenchmarkRestart is the time from a function child's return to its next
// instance's first instruction.
func BenchmarkRestart(b *testing.B) {
	up := make(chan struct{})
	s, err := Start(b.Context(), Spec{Intensity: Intensity{Max: 1 << 40, Period: time.Nanosecond}, Children: []ChildSpec{
		{ID: "a", Start: Func(func(ctx context.Context) error {
			select {
			case up <- struct{}{}:
			case <-ctx.Done():
			}
			return nil
		})},
	}}, quiet)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		<-up
	}
	if err := s.Shutdown(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkCrashes is n function children that crash once each, all at the same
// time: one op is n restarts by the driver, until all are up again.
func BenchmarkCrashes(b *testing.B) {
	for _, n := range []int{10, 1_000, 100_000} {
		b.Run(fmt.Sprintf("children=%d", n), func(b *testing.B) {
			crash, up := make(chan struct{}), make(chan struct{}, n)
			run := func(ctx context.Context) error {
				up <- struct{}{}
				select {
				case <-crash:
					return errBoom
				case <-ctx.Done():
					return nil
				}
			}
			spec := Spec{Intensity: Intensity{Max: 1 << 40, Period: time.Nanosecond}}
			for i := range n {
				spec.Children = append(spec.Children, ChildSpec{ID: strconv.Itoa(i), Start: Func(run)})
			}
			s, err := Start(b.Context(), spec, quiet)
			if err != nil {
				b.Fatal(err)
			}
			for range n {
				<-up
			}
			for b.Loop() {
				for range n {
					crash <- struct{}{}
				}
				for range n {
					<-up
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(n), "µs/restart")
			if err := s.Shutdown(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkSnapshot is the reading of a tree of n children.
func BenchmarkSnapshot(b *testing.B) {
	for _, n := range []int{10, 1_000, 100_000} {
		b.Run(fmt.Sprintf("children=%d", n), func(b *testing.B) {
			spec := Spec{}
			for i := range n {
				spec.Children = append(spec.Children, ChildSpec{ID: strconv.Itoa(i), Start: Func(idle)})
			}
			s, err := Start(b.Context(), spec, quiet)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if n := s.Snapshot(); n.Counts.Active == 0 {
					b.Fatal(n)
				}
			}
			if err := s.Shutdown(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}
