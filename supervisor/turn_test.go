package supervisor

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// blocker is an instance whose Stop blocks, and with it the supervisor that calls it.
type blocker struct {
	Base
	stopping, release, done chan struct{}
}

func (b *blocker) Done() <-chan struct{} { return b.done }
func (b *blocker) Reason() Reason        { return Reason{Kind: Shutdown} }
func (b *blocker) Kill()                 {}
func (b *blocker) Stop() {
	close(b.stopping)
	<-b.release
	close(b.done)
}

// TestTurn: a supervisor that hangs takes no turn, and one above it says so too; all the
// others do, and it does once it goes on.
func TestTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &blocker{stopping: make(chan struct{}), release: make(chan struct{}), done: make(chan struct{})}
		var below *Supervisor
		s := mustStart(t, Spec{Name: "app", Children: []ChildSpec{
			{ID: "below", Type: TypeSupervisor, Start: StarterFunc(func(ctx context.Context, inc Incarnation) (Instance, error) {
				var err error
				below, err = Start(ctx, Spec{Name: "below", Children: []ChildSpec{
					{ID: "b", Start: StarterFunc(func(context.Context, Incarnation) (Instance, error) { return b, nil })},
				}}, quiet)
				return below, err
			})},
			{ID: "f", Start: Func(idle)},
		}})
		if err := s.Turn(t.Context()); err != nil {
			t.Fatal(err)
		}
		stopped := make(chan error, 1)
		go func() { stopped <- below.TerminateChild(context.Background(), "b") }() // ends with the stop
		<-b.stopping
		for _, of := range []*Supervisor{s, below} {
			ctx, cancel := context.WithCancel(t.Context())
			turned := make(chan error, 1)
			go func() { turned <- of.Turn(ctx) }()
			synctest.Wait()
			select {
			case err := <-turned:
				t.Fatalf("it took its turn (%v) while its child's Stop blocks", err)
			default:
			}
			cancel()
			if err := <-turned; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		close(b.release)
		if err := errors.Join(<-stopped, s.Turn(t.Context())); err != nil {
			t.Error(err)
		}
		shutdown(t, s)
		if err := s.Turn(t.Context()); err != nil { // it has nothing to prove any more
			t.Error(err)
		}
	})
}
