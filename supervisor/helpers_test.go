package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

var quiet = Config{Logger: slog.New(slog.DiscardHandler)}

var errBoom = errors.New("boom")

// idle is a function child that runs until it is stopped.
func idle(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// stuck is a function child that does not react to its stop until the test ends.
func stuck(release <-chan struct{}) func(context.Context) error {
	return func(context.Context) error { <-release; return nil }
}

// remote makes function children that end when the test says so.
type remote struct {
	mu   sync.Mutex
	ends map[string]chan error
}

func newRemote() *remote { return &remote{ends: map[string]chan error{}} }

func (r *remote) child(id string) ChildSpec {
	ch := make(chan error)
	r.mu.Lock()
	r.ends[id] = ch
	r.mu.Unlock()
	return ChildSpec{ID: id, Start: Func(func(ctx context.Context) error {
		select {
		case err := <-ch:
			return err
		case <-ctx.Done():
			return nil
		}
	})}
}

// end makes the child's function return err, and waits until all is quiet.
func (r *remote) end(id string, err error) {
	r.mu.Lock()
	ch := r.ends[id]
	r.mu.Unlock()
	ch <- err
	synctest.Wait()
}

// mustStart starts a tree that must come up; the test's end shuts it down.
func mustStart(t *testing.T, spec Spec) *Supervisor {
	t.Helper()
	s, err := Start(t.Context(), spec, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func shutdown(t *testing.T, s *Supervisor) {
	t.Helper()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// shape renders the tree on one line: a#1 running b#2 restarting s#1 running [x#1 running].
func shape(n Node) string {
	var parts []string
	for _, c := range n.Children {
		p := c.ID
		if c.Incarnation > 0 {
			p += "#" + string(rune('0'+c.Incarnation))
		}
		if c.Status != Running {
			p += " " + c.Status.String()
		}
		if c.Children != nil {
			p += " [" + shape(c) + "]"
		}
		parts = append(parts, p)
	}
	return strings.Join(parts, ", ")
}

func wantShape(t *testing.T, s *Supervisor, want string) {
	t.Helper()
	synctest.Wait()
	if got := shape(s.Snapshot()); got != want {
		t.Errorf("tree is %q, want %q", got, want)
	}
}

// story collects what sub holds, one line an event.
func story(t *testing.T, sub *Subscription) []string {
	t.Helper()
	var lines []string
	for {
		ev, ok, _ := sub.pop()
		if !ok {
			return lines
		}
		lines = append(lines, ev.String())
	}
}

func wantStory(t *testing.T, sub *Subscription, want ...string) {
	t.Helper()
	synctest.Wait()
	if got := story(t, sub); !slices.Equal(got, want) {
		t.Errorf("events:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
