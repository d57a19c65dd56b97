package coppice

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/inflight"
)

// toldWorker is a worker that keeps what it was told last.
type toldWorker struct {
	id   string
	told []string
	long time.Duration // for which it serves whatever key
}

func (w *toldWorker) name() string                   { return w.id }
func (w *toldWorker) number() uint64                 { return 1 }
func (w *toldWorker) servesFor(string) time.Duration { return w.long }

func (w *toldWorker) sendOrReplace(f *fdipc.Frame) error {
	w.told = nil
	return childproto.Handle(f, func(f childproto.GuardFrame) {
		for _, k := range f.Keys {
			says := "watch"
			if k.Refuse {
				says = "refuse"
			}
			if k.Probe > 0 {
				says += fmt.Sprintf(" but %d", k.Probe)
			}
			w.told = append(w.told, says+" "+string(k.Key))
		}
	})
}

// TestRequestGuard: what the master tells workers after deaths, answers and refusals.
func TestRequestGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRequestGuard(Poison{Deaths: 2, Probe: 10 * time.Second}, "web", slog.New(slog.DiscardHandler))
		one, two := &toldWorker{id: "one"}, &toldWorker{id: "two"}
		g.join(one)
		g.join(two)
		want := func(w *toldWorker, what string, want ...string) {
			t.Helper()
			if !slices.Equal(w.told, want) {
				t.Errorf("%s: %s knows %q, want %q", what, w.id, w.told, want)
			}
		}
		die := func(keys ...string) {
			var all []inflight.Served
			for _, k := range keys {
				all = append(all, inflight.Served{Key: k})
			}
			w := &toldWorker{id: "dead"}
			g.join(w)
			g.left(w, "boom", all)
		}
		refused := func(w *toldWorker, key string) { g.told(w, childproto.GuardedKey{Key: []byte(key), Refused: 1}) }
		answered := func(w *toldWorker, key string) {
			g.told(w, childproto.GuardedKey{Key: []byte(key), Answered: true})
		}

		die("bad", "a", "b")
		want(one, "a death", "watch a", "watch b", "watch bad")
		answered(one, "a")
		die("bad", "a", "c")
		want(one, "two deaths, a answered between them", "refuse bad") // it explains both
		refused(one, "bad")
		want(one, "before the probe", "refuse bad")
		time.Sleep(10 * time.Second)
		refused(one, "bad")
		want(one, "the probe", "refuse but 1 bad")
		want(two, "the probe is one's", "refuse bad")
		refused(two, "bad")
		want(two, "another", "refuse bad")
		g.left(one, "asked", nil) // without it
		refused(two, "bad")
		want(two, "the probe of a worker that has gone", "refuse but 2 bad")
		late := &toldWorker{id: "late"}
		g.join(late)
		want(late, "a new worker", "refuse bad")
		answered(two, "bad")
		want(late, "an answer")
		want(two, "an answer")
		if list := g.Inspect(); !strings.Contains(fmt.Sprint(list), "bad true 2 4") {
			t.Errorf("the list: %v", list)
		}

		// Two that were in flight in the same deaths: one of them at a time.
		die("x", "y")
		die("x", "y")
		want(two, "a tie", "refuse x", "refuse y")
		refused(two, "x")
		want(two, "a probe at once", "refuse but 3 x", "refuse y")
		answered(two, "x")
		want(two, "the other one explains it now", "refuse y")
		if n := strings.Count(fmt.Sprint(g.Inspect()), "boom"); n != 2 {
			t.Errorf("the list: %v", g.Inspect())
		}

		// One that lasts, as a WebSocket does.
		die("long", "z")
		die("long", "z")
		refused(two, "long")
		refused(late, "long")
		want(two, "it is served, for a moment", "refuse but 4 long", "refuse y", "refuse z")
		two.long = harmlessAfter
		refused(late, "long")
		want(two, "it is served for a minute", "refuse y", "refuse z")

		if err := g.Operate("forget", "y"); err != nil {
			t.Error(err)
		}
		want(two, "forgotten", "refuse z")
		if err := g.Operate("release", "z"); err != nil {
			t.Error(err)
		}
		want(two, "released")
		if g.Operate("release", "nosuch") == nil || g.Operate("eat", "z") == nil {
			t.Error("no error")
		}
	})
}

// TestRequestGuardTrial: the worker in which a key is tried alone ends also if an operator releases
// or forgets the key meanwhile. It lived on, and nothing was tried any more.
func TestRequestGuardTrial(t *testing.T) {
	for _, do := range []string{"release", "forget"} {
		g := newRequestGuard(Poison{Deaths: 1, Probe: 1}, "web", slog.New(slog.DiscardHandler))
		lent, recalled := 0, 0
		g.lend, g.recall = func() { lent++ }, func() { recalled++ }
		for n := 1; n <= 2; n++ {
			dead, alone := &toldWorker{id: "dead"}, &toldWorker{id: "alone"}
			g.join(dead)
			g.left(dead, "boom", []inflight.Served{{Key: "lines: poison"}})
			for deadline := time.Now().Add(time.Minute); lent < n && time.Now().Before(deadline); {
				g.told(nil, childproto.GuardedKey{Key: []byte("lines: poison"), Refused: 1})
			}
			g.join(alone)
			g.tryIn(alone)
			if err := g.Operate(do, "lines: poison"); err != nil || lent != n || recalled != n {
				t.Fatalf("%s: %v; %d workers lent, %d recalled, want %d", do, err, lent, recalled, n)
			}
			g.left(alone, "asked", nil)
			g.triedIn(nil)
		}
	}
}

// TestRequestGuardBound: what no frame has room for is cleared, so that no worker refuses a key
// that no other can have answered.
func TestRequestGuardBound(t *testing.T) {
	g := newRequestGuard(Poison{Deaths: 2}, "web", slog.New(slog.DiscardHandler))
	w := &toldWorker{id: "one"}
	g.join(w)
	for d := range 10 {
		var all []inflight.Served
		for i := range 200 {
			all = append(all, inflight.Served{Key: fmt.Sprintf("%d/%d", d, i)})
		}
		g.left(&toldWorker{id: "dead"}, "boom", all)
	}
	if n := len(g.table.Guarded(g.now())); len(w.told) != maxGuardedKeys || n != maxGuardedKeys {
		t.Errorf("told %d of %d keys", len(w.told), n)
	}
}
