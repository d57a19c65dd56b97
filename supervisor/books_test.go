package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// testClock is the bubble's clock, which goes on when a program is replaced.
type testClock struct{ systemClock }

// fakeProcess is what lives on when the program is replaced.
type fakeProcess struct {
	done   chan struct{}
	reason Reason
	end    func(Reason)
}

func newFakeProcess() *fakeProcess {
	p := &fakeProcess{done: make(chan struct{})}
	var once sync.Once
	p.end = func(r Reason) { once.Do(func() { p.reason = r; close(p.done) }) }
	return p
}

// fakeImage is one image of a program, whose children are processes.
type fakeImage struct {
	*Supervisor
	world *fakeWorld
	over  bool            // it was replaced: nothing that it does has an effect
	left  map[string]bool // paths of children whose first start takes over, or is ignored
	books map[string]Book
}

// fakeWorld is what the images of a program share. It is used by one goroutine at a time.
type fakeWorld struct {
	mu        sync.Mutex
	processes map[string]*fakeProcess // by path
	failing   map[string]bool
	images    []*fakeImage
}

type fakeInstance struct {
	Base
	*fakeProcess
	image *fakeImage
}

func (i *fakeInstance) Done() <-chan struct{} { return i.done }
func (i *fakeInstance) Reason() Reason        { return i.reason }
func (i *fakeInstance) Stop()                 { i.image.act(func() { i.end(Reason{Kind: Shutdown}) }) }

func (i *fakeInstance) Kill() { i.image.act(func() { i.end(Reason{Kind: Killed}) }) }

func (g *fakeImage) act(do func()) {
	g.world.mu.Lock()
	defer g.world.mu.Unlock()
	if !g.over {
		do()
	}
}

// was returns the status of a child in the books, once.
func (g *fakeImage) was(path string) (Status, bool) {
	up, id := path[:strings.LastIndexByte(path, '/')], path[strings.LastIndexByte(path, '/')+1:]
	book, ok := g.books[up]
	if !ok || g.left[path] {
		return 0, false
	}
	g.left[path] = true
	for _, c := range book.Children {
		if c.ID == id {
			return c.Status, true
		}
	}
	return Down, true
}

// start starts a process, or takes it over.
func (g *fakeImage) start(_ context.Context, inc Incarnation) (Instance, error) {
	w := g.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if g.over {
		return nil, errBoom
	}
	if status, ok := g.was(inc.Path); ok && status != Running {
		return nil, ErrIgnore
	} else if !ok {
		if w.failing[inc.Path] {
			return nil, errBoom
		}
		w.processes[inc.Path] = newFakeProcess()
	}
	return &fakeInstance{fakeProcess: w.processes[inc.Path], image: g}, nil
}

// starter returns the starter of a supervisor.
func (g *fakeImage) starter(spec Spec) Starter {
	return StarterFunc(func(ctx context.Context, inc Incarnation) (Instance, error) {
		g.world.mu.Lock()
		status, ok := g.was(inc.Path)
		g.world.mu.Unlock()
		if ok && status != Running {
			return nil, ErrIgnore
		}
		return spec.Start(ctx, inc)
	})
}

// run starts the next image of a program whose tree spec makes.
func (w *fakeWorld) run(t *testing.T, spec func(*fakeImage) Spec, books map[string]Book) *fakeImage {
	t.Helper()
	g := &fakeImage{world: w, books: books, left: map[string]bool{}}
	var err error
	if g.Supervisor, err = Start(t.Context(), spec(g), Config{Logger: quiet.Logger, Clock: testClock{}, Books: books}); err != nil {
		t.Fatal(err)
	}
	g.Resume()
	synctest.Wait()
	g.act(func() { g.books = nil })
	w.images = append(w.images, g)
	return g
}

// replace replaces the image by another.
func (w *fakeWorld) replace(t *testing.T, g *fakeImage, spec func(*fakeImage) Spec) *fakeImage {
	t.Helper()
	books, err := g.Books()
	if err != nil {
		t.Fatal(err)
	}
	g.act(func() { g.over = true })
	return w.run(t, spec, encoded(t, books))
}

// encoded returns the books as another image reads them.
func encoded(t *testing.T, books map[string]Book) (back map[string]Book) {
	t.Helper()
	b, err := json.Marshal(books)
	if err == nil {
		err = json.Unmarshal(b, &back)
	}
	if err != nil || !reflect.DeepEqual(back, books) {
		t.Fatalf("%v: %v is read as %v", err, books, back)
	}
	return back
}

// end ends what is left.
func (w *fakeWorld) end() {
	for _, g := range w.images {
		g.act(func() { g.over = true })
	}
	for _, p := range w.processes {
		p.end(Reason{Kind: Killed})
	}
	for _, g := range w.images {
		g.Supervisor.Kill()
		<-g.Supervisor.Done()
	}
}

func newFakeWorld() *fakeWorld {
	return &fakeWorld{processes: map[string]*fakeProcess{}, failing: map[string]bool{}}
}

// crash ends a process, if it runs.
func (w *fakeWorld) crash(path string) {
	w.mu.Lock()
	p := w.processes[path]
	w.mu.Unlock()
	if p != nil {
		p.end(Reason{Kind: Exited, Code: 3})
	}
	synctest.Wait()
}

// TestBooksBudget: crashes before the program is replaced count after it, as long as the period of
// the budget says, and no longer.
func TestBooksBudget(t *testing.T) {
	for _, tt := range []struct {
		name          string
		before, after int
		wait          time.Duration
		ends          bool
	}{
		{"two and one in the period", 2, 1, 4 * time.Second, true},
		{"two, and one after the period", 2, 1, 5*time.Second + 1, false},
		{"one and one", 1, 1, 0, false},
		{"none and three", 0, 3, 0, true},
		{"three", 3, 0, 0, true},
	} {
		for _, replaced := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, replaced=%t", tt.name, replaced), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newFakeWorld()
					spec := func(g *fakeImage) Spec {
						return Spec{Intensity: Intensity{Max: 2, Period: 5 * time.Second}, Children: []ChildSpec{{ID: "a", Start: StarterFunc(g.start)}}}
					}
					g := w.run(t, spec, nil)
					defer w.end()
					for range tt.before {
						w.crash("root/a")
					}
					if replaced && g.Status() == Running {
						g = w.replace(t, g, spec)
					}
					time.Sleep(tt.wait)
					for range tt.after {
						w.crash("root/a")
					}
					if ended := g.Status() == Down; ended != tt.ends {
						t.Errorf("it has ended: %t", ended)
					}
				})
			})
		}
	}
}

// TestBooksGoOn: a tree whose program is replaced again and again does at each moment what it does
// when it is not, and shows the same of itself.
func TestBooksGoOn(t *testing.T) {
	runs := 200
	if testing.Short() {
		runs = 60
	}
	for seed := range uint64(runs) {
		plain, _ := history(t, seed, false)
		got, replaced := history(t, seed, true)
		for i := range max(len(plain), len(got)) {
			if i >= len(plain) || i >= len(got) || got[i] != plain[i] {
				t.Fatalf("seed %d, %d replacements, step %d: it is\n%s\nand would be\n%s", seed, replaced, i,
					strings.Join(got[max(0, i-1):min(len(got), i+1)], "\n"), strings.Join(plain[max(0, i-1):min(len(plain), i+1)], "\n"))
			}
		}
	}
}

// history plays what happens to a tree, and returns what it showed after each step.
func history(t *testing.T, seed uint64, replace bool) (shown []string, replaced int) {
	synctest.Test(t, func(t *testing.T) {
		r, at := rand.New(rand.NewPCG(seed, 0)), rand.New(rand.NewPCG(seed, 1))
		w := newFakeWorld()
		defer w.end()
		strategy, persist := Strategy(r.IntN(3)), r.IntN(2) == 0
		backoff := Backoff{Initial: time.Second, Max: 10 * time.Second, NoJitter: true, AtOnce: r.IntN(2) == 0, Attempts: r.IntN(3) * 4}
		spec := func(g *fakeImage) Spec {
			process := func(id string) ChildSpec { return ChildSpec{ID: id, Start: StarterFunc(g.start)} }
			transient := process("t")
			transient.Restart = Transient
			temporary := process("once")
			temporary.Restart = Temporary
			return Spec{Strategy: strategy, Intensity: Intensity{Max: 6, Period: 30 * time.Second}, Backoff: Backoff{Initial: 3 * time.Second, NoJitter: true}, Children: []ChildSpec{
				process("a"), transient,
				{ID: "s", Type: TypeSupervisor, Start: g.starter(Spec{Backoff: backoff, Persist: persist, Intensity: Intensity{Max: 3, Period: 10 * time.Second}, Children: []ChildSpec{
					process("x"), process("y"),
				}})},
				temporary,
			}}
		}
		g := w.run(t, spec, nil)
		paths := []string{"root/a", "root/t", "root/s/x", "root/s/y", "root/once"}
		for range 40 {
			path := paths[r.IntN(len(paths))]
			var step string
			switch r.IntN(8) {
			case 0, 1, 2:
				step = "crash " + path
				w.crash(path)
			case 3:
				g.act(func() { w.failing[path] = !w.failing[path] })
				step = fmt.Sprintf("failing %s %t", path, w.failing[path])
			case 4:
				step = "toggle t"
				if err := g.TerminateChild(t.Context(), "t"); r.IntN(2) == 0 && err == nil {
					_, _ = g.RestartChild(t.Context(), "t")
				}
			default:
				d := time.Duration(r.IntN(4000)) * time.Millisecond
				step = fmt.Sprintf("wait %v", d)
				time.Sleep(d)
			}
			synctest.Wait()
			if replace && at.IntN(3) == 0 && g.Status() == Running {
				g = w.replace(t, g, spec)
				replaced++
			}
			shown = append(shown, step+": "+whole(g.Snapshot()))
		}
	})
	return shown, replaced
}

// whole renders all that a snapshot has of a tree.
func whole(n Node) string {
	exit := ""
	if n.LastExit != nil {
		exit, _, _ = strings.Cut(n.LastExit.String(), "s: ") // which of two that fail at once is the last straw is not promised
	}
	text := fmt.Sprintf("\n%s %v #%d since %s, %d failures, next %s, %d of %d, last exit %q", n.Path, n.Status, n.Incarnation,
		n.Since.Format("04:05.000"), n.Failures, n.NextAttempt.Format("04:05.000"), n.Used, n.Max, exit)
	for _, c := range n.Children {
		text += whole(c)
	}
	return text
}

// TestBooksUnderWay: no book tells of a start that is under way, or of the end.
func TestBooksUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mustStart(t, Spec{})
		slow := StarterFunc(func(ctx context.Context, _ Incarnation) (Instance, error) { <-ctx.Done(); return nil, ctx.Err() })
		go func() { _, _ = s.StartChild(t.Context(), ChildSpec{ID: "slow", Start: slow}) }()
		synctest.Wait()
		if _, err := s.Books(); err == nil || !strings.Contains(err.Error(), "root/slow is starting") {
			t.Errorf("error %v", err)
		}
		shutdown(t, s)
		if _, err := s.Books(); !errors.Is(err, ErrStopped) {
			t.Errorf("error %v", err)
		}
	})
}

// TestBooksOfAnything: books that no supervisor wrote make a tree that goes on, and ends.
func TestBooksOfAnything(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	moment := func() time.Duration {
		return []time.Duration{0, -1 << 62, 1 << 62, time.Second, -time.Second}[r.IntN(5)]
	}
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			b := Book{Epoch: moment(), Began: moment(), LastUp: moment(), Restarts: []time.Duration{moment(), moment()}}
			for _, id := range []string{"a", "a", "", "b"} {
				b.Children = append(b.Children, ChildBook{
					ID: id, Status: Status(r.IntN(7)), Incarnation: uint64(r.IntN(3)), Since: moment(), Began: moment(), Due: moment(),
					Counted: r.IntN(2) == 0, Failures: r.IntN(5) - 2, Bound: moment(), Ended: r.IntN(2) == 0, LastExit: PastReason{Kind: ReasonKind(r.IntN(12))},
				})
			}
			w := newFakeWorld()
			ignored := map[string]bool{}
			g := w.run(t, func(g *fakeImage) Spec {
				start := StarterFunc(func(ctx context.Context, inc Incarnation) (Instance, error) {
					if !ignored[inc.ID] && inc.ID == "b" {
						ignored[inc.ID] = true
						return nil, ErrIgnore
					}
					g.act(func() { g.books = nil })
					return g.start(ctx, inc)
				})
				return Spec{Intensity: Intensity{Max: 5, Period: time.Minute}, Backoff: Backoff{Initial: time.Second}, Children: []ChildSpec{{ID: "a", Start: start}, {ID: "b", Start: start}}}
			}, map[string]Book{"root": b})
			time.Sleep(time.Hour) // what waits for its restart has it by then
			synctest.Wait()
			if n := g.Snapshot(); n.Find("a").Status != Running || n.Find("b").Status == Restarting {
				t.Errorf("%+v makes\n%v", b, n)
			}
			w.end()
		})
	}
}
