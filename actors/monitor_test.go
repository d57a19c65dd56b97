package actors

import (
	"runtime"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// patience bounds every wait of this package's own tests.
const patience = time.Minute

// await waits until f holds.
func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain: ", what)
		}
	}
}

// onlyMonitor removes the one monitor of s, as Cancel does. It returns false while there is none,
// or its place is not known. It does not undo what Cancel would undo at the actor.
func onlyMonitor(s *System) bool {
	t := s.monitors
	t.mu.Lock()
	var only *Monitor
	for _, m := range t.open {
		if m.undo != nil {
			only = m
		}
	}
	t.mu.Unlock()
	if only == nil {
		return false
	}
	_, ok := t.take(only, nil)
	return ok
}

// A Cancel, or the end of the watcher, that comes while the monitor is on its way to the actor
// finds nothing to undo there. Nevertheless the actor keeps nothing of the monitor, in any process.
func TestMonitorCancelledOnItsWay(t *testing.T) {
	newWatched := func(t *testing.T) (*System, *incarnation) {
		s := quietSystem(t, Config{Address: "0"})
		if _, err := s.Spawn(t.Context(), "a", func() actor.Actor { return actor.ReceiveFunc(func(actor.Context) {}) }); err != nil {
			t.Fatal(err)
		}
		return s, s.local.find("a")
	}
	// held does what watches, with the actor held up until meanwhile is true.
	held := func(t *testing.T, inc *incarnation, watch func(), meanwhile func() bool) {
		t.Helper()
		inc.mu.Lock()
		done := make(chan struct{})
		go func() { // ends with watch, which waits for the lock alone
			defer close(done)
			watch()
		}()
		await(t, "the monitor on its way", meanwhile)
		inc.mu.Unlock()
		<-done
		inc.mu.Lock()
		defer inc.mu.Unlock()
		if n := len(inc.watchers); n != 0 {
			t.Errorf("the actor has %d watchers", n)
		}
	}
	t.Run("in this process", func(t *testing.T) {
		s, inc := newWatched(t)
		held(t, inc, func() { s.Monitor(inc.pid) }, func() bool { return onlyMonitor(s) })
	})
	t.Run("of another process that ends", func(t *testing.T) {
		s, inc := newWatched(t)
		if err := s.Attach("1", 0, &sink{}); err != nil {
			t.Fatal(err)
		}
		b := wire.AppendString(wire.AppendPID(nil, inc.pid), "1")
		f := fdipc.Frame{Kind: wire.KindMonitor, Lane: fdipc.Data, Payload: append(b, 7)}
		held(t, inc, func() { s.HandleFrame("1", &f) }, func() bool { _, ok := s.inbound.takeMonitor("1", 7); return ok })
	})
	t.Run("to another process", func(t *testing.T) {
		s := quietSystem(t, Config{Address: "0"})
		c := &cancelling{s: s}
		if err := s.Attach("1", 0, c); err != nil {
			t.Fatal(err)
		}
		s.Monitor(actor.NewPID("1", "a"))
		var kinds []fdipc.Kind
		for _, f := range c.list() {
			if f.Kind == wire.KindMonitor || f.Kind == wire.KindDemonitor {
				kinds = append(kinds, f.Kind)
			}
		}
		if len(kinds) != 2 || kinds[0] != wire.KindMonitor || kinds[1] != wire.KindDemonitor {
			t.Errorf("sent kinds %v, want the monitor, then its end", kinds)
		}
	})
}

// cancelling is a Conn on which monitors are cancelled just as they leave.
type cancelling struct {
	sink
	s *System
}

func (c *cancelling) TrySend(f *fdipc.Frame) error {
	if f.Kind == wire.KindMonitor {
		onlyMonitor(c.s)
	}
	return c.sink.TrySend(f)
}
