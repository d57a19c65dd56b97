package actors_test

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
	"go.opentelemetry.io/otel/trace/noop"
)

// pausable is a Conn that can be suspended, as one between two processes can.
type pausable struct {
	*fdipc.Conn
	mu      sync.RWMutex
	resumed chan struct{} // nil: it is not suspended
}

func (p *pausable) suspend() {
	p.mu.Lock()
	if p.resumed == nil {
		p.resumed = make(chan struct{})
	}
	p.mu.Unlock()
}

func (p *pausable) resume() {
	p.mu.Lock()
	close(p.resumed)
	p.resumed = nil
	p.mu.Unlock()
}

func (p *pausable) TrySend(f *fdipc.Frame) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.resumed != nil {
		return fdipc.ErrSuspended
	}
	return p.Conn.TrySend(f)
}

func (p *pausable) Send(ctx context.Context, f *fdipc.Frame) error {
	for {
		p.mu.RLock()
		resumed := p.resumed
		if resumed == nil {
			err := p.Conn.TrySend(f)
			p.mu.RUnlock()
			if !errors.Is(err, fdipc.ErrFull) {
				return err
			}
			resumed = make(chan struct{})
			time.AfterFunc(time.Millisecond, func() { close(resumed) })
		} else {
			p.mu.RUnlock()
		}
		select {
		case <-resumed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// suspend stops the channels and the master. It returns the state.
func (tree *testTree) suspend(ctx context.Context) ([]byte, error) {
	tree.reading.Lock()
	for _, m := range tree.all() {
		m.up.suspend()
	}
	state, err := tree.Master.Suspend(ctx)
	if err != nil {
		tree.goOn()
	}
	return state, err
}

// goOn lets the channels go on, after a Resume.
func (tree *testTree) goOn() {
	for _, m := range tree.all() {
		m.up.resume()
	}
	tree.reading.Unlock()
}

func (tree *testTree) all() (list []*treeChild) {
	tree.mu.Lock()
	defer tree.mu.Unlock()
	for _, m := range tree.child {
		list = append(list, m)
	}
	return list
}

// replace makes a new master from the state of the old one. spawn starts its actors.
func (tree *testTree) replace(state []byte, spawn func(s *actors.System)) {
	tree.t.Helper()
	tree.Master = restoreAs(tree.t, actors.Config{Address: tree.boot + "0", Host: tree.host}, state)
	for _, m := range tree.all() {
		m.up = &pausable{Conn: m.up.Conn, resumed: make(chan struct{})}
		n, _ := strconv.ParseUint(strings.TrimPrefix(m.sys.Address(), tree.boot), 10, 64)
		tree.must(tree.Master.Attach(m.sys.Address(), n, m.up))
	}
	if spawn != nil {
		spawn(tree.Master)
	}
	tree.Master.Resume()
	tree.goOn()
}

func restore(t testing.TB, state []byte) *actors.System {
	t.Helper()
	return restoreAs(t, actors.Config{Address: "0"}, state)
}

func restoreAs(t testing.TB, cfg actors.Config, state []byte) *actors.System {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	s, err := actors.Restore(cfg, state)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = s.Shutdown(ctx)
	})
	return s
}

// mustSuspend is suspend that must succeed.
func (tree *testTree) mustSuspend() []byte {
	tree.t.Helper()
	state, err := tree.suspend(testContext(tree.t))
	if err != nil {
		tree.t.Fatal(err)
	}
	return state
}

// tally is an actor that hands its count over. It answers add with the count; keep, when it is
// told release.
type tally struct {
	version int
	count   int
	waiting []*actor.PID
	refuse  error // of HandOver, or TakeOver
	busy    chan struct{}
	spin    bool
}

type (
	add     int
	keep    struct{}
	release struct{}
	block   struct{}
	spin    struct{}
)

func init() {
	actors.RegisterType[add]("test.add")
	actors.RegisterType[keep]("test.keep")
	actors.RegisterType[release]("test.release")
	actors.RegisterType[spin]("test.spin")
}

func (c *tally) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case add:
		c.count += int(m)
		if ctx.Sender() != nil {
			ctx.Respond(c.count)
		}
	case keep:
		c.waiting = append(c.waiting, ctx.Sender())
	case release:
		for _, asker := range c.waiting {
			ctx.Send(asker, c.count)
		}
		c.waiting = nil
	case block:
		<-c.busy
	case spin: // there is always a message
		if c.spin {
			ctx.Send(ctx.Self(), spin{})
		}
	}
}

func (c *tally) HandOver(actor.Context) (actors.Handover, error) {
	return actors.Handover{
		Version: c.version, State: binary.AppendVarint(nil, int64(c.count)), Asks: c.waiting,
	}, c.refuse
}

func (c *tally) TakeOver(_ actor.Context, h actors.Handover) error {
	if c.refuse != nil {
		return c.refuse
	}
	n, _ := binary.Varint(h.State)
	c.count, c.waiting = int(n), h.Asks
	if h.Version > c.version {
		return errors.New("a later version")
	}
	return nil
}

// count returns the count of a tally.
func count(t *testing.T, s *actors.System, pid *actor.PID) int {
	t.Helper()
	n, ok := ask(t, s, pid, add(0)).(int)
	if !ok {
		t.Fatal("no number")
	}
	return n
}

func aTally(c tally) func() actor.Actor { return func() actor.Actor { return &c } }

func wantMessage(t *testing.T, p *probe, want any) {
	t.Helper()
	if got := p.Next().Message; got != want {
		t.Fatalf("message %v, want %v", got, want)
	}
}

// wantDown waits for the Down of m.
func wantDown(t *testing.T, m *actors.Monitor) supervisor.Reason {
	t.Helper()
	return next(t, m.C).Reason
}

func wantNoDown(t *testing.T, m *actors.Monitor) {
	t.Helper()
	select {
	case d := <-m.C:
		t.Fatalf("down: %v", d)
	default:
	}
}

// TestReplace: an actor that hands over is the same to other processes, one that does not has
// ended, and one of its name is a new one.
func TestReplace(t *testing.T) {
	tree := newTree(t, 2)
	a, b := tree.Child(0), tree.Child(1)
	traced := noop.NewTracerProvider()
	instrumented := actors.Instrument(traced, actors.Instrument(traced, aTally(tally{}))) // is the actor inside
	kept := spawn(t, tree.Master, "kept", instrumented)
	plain := spawn(t, tree.Master, "plain", echo)
	gone := spawn(t, tree.Master, "gone", aTally(tally{}))
	ctx := testContext(t)
	for name, pid := range map[string]*actor.PID{"alias": kept, "of plain": plain} {
		if err := tree.Master.Register(ctx, name, pid); err != nil {
			t.Fatal(err)
		}
	}
	own := newProbe(t, b, "own")
	if err := b.Register(ctx, "of b", own.PID); err != nil {
		t.Fatal(err)
	}
	ask(t, a, kept, add(7))
	if v := ask(t, a, a.Lookup("plain"), "x"); v != "x" {
		t.Fatal(v)
	}
	if err := a.Send(ctx, a.Lookup("of b"), "before"); err != nil {
		t.Fatal(err)
	}
	wantMessage(t, own, "before")
	mKept, mPlain, mGone := a.Monitor(kept), a.Monitor(plain), a.Monitor(gone)
	mName, mProcess := a.Monitor(a.Lookup("kept")), a.Monitor(actors.ProcessPID("0"))
	watcher := newProbe(t, b, "watcher")
	watcher.Do(func(c actor.Context) { c.Watch(plain); c.Watch(kept) })
	ask(t, b, kept, add(1)) // behind the watches
	held := askHeld(t, ctx, a, plain)
	waits := make(chan error, 1)
	go func() { // ends with the answer
		v, err := actors.Ask[int](ctx, a, kept, keep{})
		if err == nil && v != 13 {
			err = errors.New(strconv.Itoa(v))
		}
		waits <- err
	}()
	settled(t, "the ask is not there", func() bool { return actors.Inbound(tree.Master) == 2 })

	state := tree.mustSuspend()
	tree.replace(state, func(s *actors.System) {
		spawn(t, s, "kept", instrumented)
		spawn(t, s, "plain", echo)
	})
	wantErr(t, next(t, held), actors.ErrReplaced)
	for _, m := range []*actors.Monitor{mPlain, mGone} {
		if r := wantDown(t, m); !errors.Is(r.Cause, actors.ErrReplaced) {
			t.Errorf("reason %v", r)
		}
	}
	if e := next(t, watcher.term); e.Who.Id != "plain" || e.Why != actor.TerminatedReason_Stopped {
		t.Errorf("%v", e)
	}
	if n := count(t, a, kept); n != 8 {
		t.Errorf("count %d", n)
	}
	if v := ask(t, a, a.Lookup("plain"), "again"); v != "again" {
		t.Error(v)
	}
	_, err := a.Ask(ctx, gone, add(1))
	wantErr(t, err, actors.ErrNoActor)
	if v := ask(t, b, b.Lookup("alias"), add(5)); v != 13 {
		t.Error(v)
	}
	_, err = b.Whereis(ctx, "of plain")
	wantErr(t, err, actors.ErrNoActor)
	if err := a.Send(ctx, kept, release{}); err != nil {
		t.Fatal(err)
	}
	if err := next(t, waits); err != nil {
		t.Error(err)
	}

	// Names: the cache of a learns of the change, and the lane goes on.
	other := newProbe(t, tree.Master, "other")
	if err := tree.Master.Reregister(ctx, "of b", other.PID); err != nil {
		t.Fatal(err)
	}
	for i, pid := range []*actor.PID{a.Lookup("of b"), own.PID} {
		if err := a.Send(ctx, pid, i); err != nil {
			t.Fatal(err)
		}
	}
	wantMessage(t, other, 0)
	wantMessage(t, own, 1)
	wantNoDown(t, mKept)
	wantNoDown(t, mName)
	if err := b.Stop(ctx, kept); err != nil {
		t.Fatal(err)
	}
	wantKind(t, wantDown(t, mKept), supervisor.Shutdown)
	wantKind(t, wantDown(t, mName), supervisor.Shutdown)
	if e := next(t, watcher.term); e.Who.Id != "kept" {
		t.Errorf("%v", e)
	}
	wantNoDown(t, mProcess)
}

// TestReplaceMonitorsOfActors: the monitors and the watches of an actor that hands over go along,
// those of the rest of the image end.
func TestReplaceMonitorsOfActors(t *testing.T) {
	tree := newTree(t, 2)
	a := tree.Child(0)
	targets := []*actor.PID{
		newProbe(t, a, "x").PID, a.Lookup("test/0/y"), tree.Child(1).Process(), newProbe(t, tree.Master, "here").PID,
	}
	newProbe(t, a, "y")
	watched := newProbe(t, a, "watched").PID
	got := make(chan Got, 10)
	observer := func(s *actors.System) func() actor.Actor {
		return func() actor.Actor { return &observing{sys: s, targets: targets, watched: watched, got: got} }
	}
	spawn(t, tree.Master, "observer", observer(tree.Master))
	tree.Master.Monitor(targets[0]) // ends with the image
	settled(t, "the monitors are not there", func() bool { return actors.Watched(a) == 4 })
	downs := func(n int) (ids []string) {
		for range n {
			switch m := next(t, got).Message.(type) {
			case *actors.Down:
				ids = append(ids, m.PID.Id+" "+m.Reason.String())
			case *actor.Terminated:
				ids = append(ids, m.Who.Id+" "+m.Why.String())
			}
		}
		slices.Sort(ids)
		return ids
	}

	tree.replace(tree.mustSuspend(), func(s *actors.System) {
		targets, watched = nil, nil // not again
		spawn(t, s, "observer", observer(s))
	})
	if d := downs(1); d[0] != "here error: "+actors.ErrReplaced.Error() {
		t.Error(d)
	}
	settled(t, "a monitor of the old image goes on", func() bool { return actors.Watched(a) == 3 })
	for _, id := range []string{"x", "y", "watched"} {
		if err := a.Stop(testContext(t), actor.NewPID(a.Address(), id)); err != nil {
			t.Fatal(err)
		}
	}
	if d := downs(3); !slices.Equal(d, []string{"test/0/y shutdown", "watched Stopped", "x shutdown"}) {
		t.Error(d)
	}
	tree.Kill(1, supervisor.Reason{Kind: supervisor.Exited, Code: 3})
	if d := downs(1); d[0] != "process$ exit code 3" {
		t.Error(d)
	}
	if len(got) > 0 {
		t.Error("more came")
	}
}

// observing monitors its targets.
type observing struct {
	sys     *actors.System
	targets []*actor.PID
	watched *actor.PID
	got     chan Got
}

func (o *observing) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		if o.watched != nil {
			ctx.Watch(o.watched)
		}
		for _, pid := range o.targets {
			o.sys.MonitorFrom(ctx, pid)
		}
	case *actors.Down, *actor.Terminated:
		o.got <- Got{Message: m}
	}
}

func (o *observing) HandOver(actor.Context) (actors.Handover, error) { return actors.Handover{}, nil }
func (o *observing) TakeOver(actor.Context, actors.Handover) error   { return nil }

// TestReplaceMailbox: what waits in the mailbox of an actor when its time is over is handled by the
// actor of its name in the new image, once and in order; what cannot cross is a dead letter.
func TestReplaceMailbox(t *testing.T) {
	actors.ShortSettle(t)
	for _, row := range []struct {
		name  string
		again bool // the actor is spawned again
	}{{"spawned again", true}, {"not", false}} {
		t.Run(row.name, func(t *testing.T) {
			tree := newTree(t, 1)
			a := tree.Child(0)
			busy := make(chan struct{})
			pid := spawn(t, tree.Master, "tally", aTally(tally{busy: busy}))
			target := newProbe(t, a, "target").PID
			ctx := testContext(t)
			send := func(s *actors.System, msg any) {
				t.Helper()
				if err := s.Send(ctx, pid, msg); err != nil {
					t.Fatal(err)
				}
			}
			send(tree.Master, block{})
			settled(t, "it is not blocked", func() bool { return actors.Queue(tree.Master, pid) == 0 })
			send(a, add(1))
			answer := make(chan any, 1)
			go func() { // ends with the answer
				v, err := a.Ask(ctx, pid, add(10))
				if err != nil {
					v = err
				}
				answer <- v
			}()
			settled(t, "the ask is not there", func() bool { return actors.Inbound(tree.Master) == 1 && actors.Queue(tree.Master, pid) == 2 })
			send(tree.Master, make(chan int)) // cannot cross
			send(tree.Master, add(100))
			send(a, make([]byte, 1<<17))
			settled(t, "it is not there", func() bool { return actors.Queue(tree.Master, pid) == 5 })
			send(tree.Master, &actors.Down{PID: target, Reason: supervisor.Reason{Kind: supervisor.Exited, Code: 9}})
			go func() { // ends with Suspend
				settled(t, "not on hold", func() bool { return actors.OnHold(tree.Master, pid) })
				close(busy)
			}()
			state := tree.mustSuspend()
			var got []any
			tree.replace(state, func(s *actors.System) {
				if row.again {
					c := &tally{}
					spawn(t, s, "tally", func() actor.Actor { return noting{c, &got} })
				}
			})
			total, _ := tree.Master.DeadLetters()
			if !row.again {
				if err, _ := next(t, answer).(error); !errors.Is(err, actors.ErrReplaced) || total != 6 {
					t.Errorf("error %v, %d dead letters", err, total)
				}
				return
			}
			if v := next(t, answer); v != 11 || total != 1 {
				t.Errorf("answer %v, %d dead letters", v, total)
			}
			if n := count(t, a, pid); n != 111 || len(got) != 6 {
				t.Fatalf("count %d, got %v", n, got)
			}
			down, _ := got[4].(*actors.Down)
			if b, _ := got[3].([]byte); len(b) != 1<<17 || got[2] != add(100) || down == nil || down.Reason.Code != 9 || !down.PID.Equal(target) {
				t.Errorf("got %v", got)
			}
		})
	}
}

// noting notes the messages of an actor.
type noting struct {
	*tally
	got *[]any
}

func (n noting) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(*actor.Started); !ok {
		*n.got = append(*n.got, ctx.Message())
	}
	n.tally.Receive(ctx)
}

// TestSuspendFails: an actor that cannot hand over, or is not done in time, keeps the replacement
// from taking place, and the System goes on.
func TestSuspendFails(t *testing.T) {
	actors.ShortSettle(t)
	why := errors.New("not now")
	for _, row := range []struct {
		name string
		c    tally
		want error
	}{
		{"an error", tally{refuse: why}, why},
		{"a handler that goes on", tally{busy: make(chan struct{})}, context.DeadlineExceeded},
	} {
		t.Run(row.name, func(t *testing.T) {
			tree := newTree(t, 1)
			pid := spawn(t, tree.Master, "tally", aTally(row.c))
			other := spawn(t, tree.Master, "other", aTally(tally{}))
			ctx := testContext(t)
			if row.c.busy != nil {
				if err := tree.Master.Send(ctx, pid, block{}); err != nil {
					t.Fatal(err)
				}
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
				defer cancel()
			}
			_, err := tree.suspend(ctx)
			wantErr(t, err, row.want)
			if row.c.busy != nil {
				close(row.c.busy)
			}
			for _, pid := range []*actor.PID{pid, other} {
				ask(t, tree.Child(0), pid, add(3))
			}
			if n := count(t, tree.Child(0), pid); n != 3 {
				t.Errorf("count %d", n)
			}
		})
	}
}

// TestSuspendResume: after Resume the same actors go on, and what was sent meanwhile arrives.
func TestSuspendResume(t *testing.T) {
	tree := newTree(t, 1)
	c := &tally{}
	pid := spawn(t, tree.Master, "tally", func() actor.Actor { return c })
	plain := spawn(t, tree.Master, "plain", echo)
	far := newProbe(t, tree.Child(0), "far")
	ctx := testContext(t)
	held := askHeld(t, ctx, tree.Child(0), plain)
	m := tree.Child(0).Monitor(plain)
	ask(t, tree.Child(0), pid, add(1))
	for range 3 {
		tree.mustSuspend()
		for i := range 3 {
			if err := tree.Master.Send(ctx, far.PID, i); err != nil {
				t.Fatal(err)
			}
			if err := tree.Master.Send(ctx, pid, add(1)); err != nil {
				t.Fatal(err)
			}
		}
		tree.Master.Resume()
		tree.goOn()
		for i := range 3 {
			wantMessage(t, far, i)
		}
	}
	if n := count(t, tree.Child(0), pid); n != 10 || c.count != 10 {
		t.Errorf("count %d", n)
	}
	wantNoDown(t, m)
	if err := tree.Master.Stop(ctx, plain); err != nil {
		t.Fatal(err)
	}
	wantErr(t, next(t, held), actors.ErrDown)
	wantKind(t, wantDown(t, m), supervisor.Shutdown)
}

// TestTakeOverFails: an actor that cannot take over does not start, and the next one gets the
// state.
func TestTakeOverFails(t *testing.T) {
	tree := newTree(t, 1)
	pid := spawn(t, tree.Master, "tally", aTally(tally{version: 2}))
	ask(t, tree.Child(0), pid, add(4))
	m := tree.Child(0).Monitor(pid)
	why := errors.New("not this")
	tree.replace(tree.mustSuspend(), func(s *actors.System) {
		_, err := s.Spawn(testContext(t), "tally", aTally(tally{refuse: why}))
		wantErr(t, err, why)
		_, err = s.Spawn(testContext(t), "tally", aTally(tally{version: 1})) // cannot read it
		if err == nil {
			t.Error("no error")
		}
		spawn(t, s, "tally", aTally(tally{version: 2}))
	})
	if n := count(t, tree.Child(0), pid); n != 4 {
		t.Errorf("count %d", n)
	}
	wantNoDown(t, m)
}

// TestReplaceUnsent: what a child has not been sent goes along. If that has handles, the master is
// not replaced.
func TestReplaceUnsent(t *testing.T) {
	tree := newTree(t, 2)
	a, b := tree.Child(0), tree.Child(1)
	far := newProbe(t, a, "far")
	pid := spawn(t, tree.Master, "tally", aTally(tally{}))
	m := a.Monitor(pid)
	ctx := testContext(t)
	ask(t, a, pid, add(1)) // behind the monitor
	doesNotRead := func() {
		for _, m := range tree.all() {
			if m.sys == a {
				m.up.suspend()
			}
		}
	}
	doesNotRead()
	go func() { // ends with the lane
		if err := b.Send(ctx, far.PID, "by a lane"); err != nil {
			t.Error(err)
		}
	}()
	settled(t, "no lane is made", func() bool { return actors.NewestLane(tree.Master) == 1 })
	_, err := tree.suspend(ctx)
	wantErr(t, err, actors.ErrBusy)
	wantMessage(t, far, "by a lane")

	doesNotRead()
	if err := tree.Master.Stop(ctx, pid); err != nil {
		t.Fatal(err)
	}
	all := do{func(ctx actor.Context) { // waits for Suspend
		for i := range 100 {
			ctx.Send(far.PID, i)
		}
	}, make(chan struct{})}
	if err := tree.Master.Send(ctx, newProbe(t, tree.Master, "").PID, all); err != nil {
		t.Fatal(err)
	}
	tree.replace(tree.mustSuspend(), nil)
	wantKind(t, wantDown(t, m), supervisor.Shutdown)
	for i := range 100 {
		wantMessage(t, far, i)
	}
}

// TestReplaceNumbers: numbers go on, so that what comes late for the old image finds nothing of the
// new one; a change of a name that waits for a child ends, and that child hears of it.
func TestReplaceNumbers(t *testing.T) {
	tree := newTree(t, 2)
	a, b := tree.Child(0), tree.Child(1)
	slow := spawn(t, a, "slow", aTally(tally{}))
	nameless := spawn(t, tree.Master, "", echo)
	ctx := testContext(t)
	gone, cancel := context.WithCancel(ctx)
	defer cancel()
	for range 3 {
		go func() { _, _ = tree.Master.Ask(gone, slow, keep{}) }()
	}
	settled(t, "the asks are not there", func() bool { return actors.Inbound(a) == 3 })
	x := newProbe(t, a, "x")
	if err := a.Register(ctx, "name", x.PID); err != nil {
		t.Fatal(err)
	}
	if err := b.Send(ctx, b.Lookup("name"), "first"); err != nil {
		t.Fatal(err)
	}
	wantMessage(t, x, "first")
	for _, m := range tree.all() {
		if m.sys == b {
			m.up.suspend() // it hears nothing of the change
		}
	}
	moved, z := make(chan error, 1), newProbe(t, a, "z")
	go func() { moved <- a.Reregister(ctx, "name", z.PID) }() // ends with Suspend
	settled(t, "no change waits", func() bool { return actors.Unacknowledged(tree.Master) == 1 })
	tree.replace(tree.mustSuspend(), nil)
	if err := next(t, moved); err != nil {
		t.Error(err)
	}
	settled(t, "b does not hear of the change", func() bool {
		if err := b.Send(ctx, b.Lookup("name"), "second"); err != nil {
			t.Fatal(err)
		}
		return len(z.got) > 0
	})
	settled(t, "the asks of the old image go on", func() bool { return actors.Inbound(a) == 0 })
	late := askHeld(t, ctx, tree.Master, spawn(t, b, "echo", echo))
	ask(t, a, slow, add(0))
	if err := a.Send(ctx, slow, release{}); err != nil { // answers come for the asks of the old image
		t.Fatal(err)
	}
	settled(t, "no dead letters", func() bool { n, _ := tree.Master.DeadLetters(); return n == 3 })
	select {
	case err := <-late:
		t.Error(err)
	default:
	}
	if pid := spawn(t, tree.Master, "", echo); pid.Equal(nameless) {
		t.Error("the id of an actor of the old image")
	}
}

// TestResumeOfAnother: a process that was attached while the System was suspended, and is behind
// already, keeps the one goroutine that sends to it.
func TestResumeOfAnother(t *testing.T) {
	tree := newTree(t, 1)
	child := tree.Child(0)
	spawn(t, child, "echo", echo)
	empty := actors.Fill(tree.Master, child.Address(), 1)
	tree.Master.Resume()
	empty()
	if _, err := tree.Master.Ask(testContext(t), actor.NewPID(child.Address(), "echo"), 1); err != nil {
		t.Error(err)
	}
}
