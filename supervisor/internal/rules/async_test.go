package rules

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// chaos drives State as the real driver does: starts, ends, timers and requests
// come in any order and at any time. There is no model for that; what must
// hold is in its methods.
type chaos struct {
	t        testing.TB
	s        *State
	now      Time
	starting []chaosRun // starts that were not answered
	running  []chaosRun // instances that have not ended
	late     []chaosRun // abandoned starts, and instances that came of them
	timers   map[Key]Time
	open     map[uint64]bool // requests without an answer
	calls    uint64
	ended    bool
}

type chaosRun struct {
	key   Key
	run   uint64
	asked bool
}

func (c *chaos) step(ev Event) {
	for _, e := range slices.Clone(c.s.Step(c.now, ev)) {
		c.effect(e)
	}
	c.s.check(c.t)
}

func (c *chaos) effect(e Effect) {
	if c.ended && e.Kind != KillInstance {
		c.t.Fatalf("effect %+v after Terminated", e)
	}
	same := func(r chaosRun) bool { return r.key == e.Key && r.run == e.Run }
	switch e.Kind {
	case Start:
		for _, r := range append(slices.Clone(c.starting), c.running...) {
			if r.key == e.Key {
				c.t.Fatalf("child %d is started a second time", e.Key)
			}
		}
		c.starting = append(c.starting, chaosRun{key: e.Key, run: e.Run})
	case Cancel:
		i := slices.IndexFunc(c.starting, same)
		if i < 0 {
			c.t.Fatalf("cancel of %d: no such start", e.Key)
		}
		c.starting[i].asked = true
	case Abandon:
		i := slices.IndexFunc(c.starting, same)
		if i < 0 || !c.starting[i].asked {
			c.t.Fatalf("abandon of %d: no such start, or not cancelled", e.Key)
		}
		c.late = append(c.late, c.starting[i])
		c.starting = slices.Delete(c.starting, i, i+1)
	case StopInstance, KillInstance:
		if i := slices.IndexFunc(c.running, same); i >= 0 {
			c.running[i].asked = true
		} else if i := slices.IndexFunc(c.late, same); i < 0 {
			c.t.Fatalf("stop of %d#%d: no such instance", e.Key, e.Run)
		} else {
			c.late = slices.Delete(c.late, i, i+1)
		}
	case SetTimer:
		if delete(c.timers, e.Key); e.At > 0 {
			c.timers[e.Key] = e.At
		}
	case Answer:
		if !c.open[e.From] {
			c.t.Fatalf("call %d is answered twice", e.From)
		}
		delete(c.open, e.From)
	case Terminated:
		c.ended = true
		if len(c.starting)+len(c.running) > 0 {
			c.t.Fatalf("terminated before %v and %v", c.starting, c.running)
		}
		if len(c.open) > 0 {
			c.t.Fatalf("terminated with requests open: %v", c.open)
		}
	case Report, Retry, Moved, Forget, Up:
	}
}

func (c *chaos) answer(i int, kind EventKind) {
	r := c.starting[i]
	c.starting = slices.Delete(c.starting, i, i+1)
	if kind == Started {
		c.running = append(c.running, chaosRun{key: r.key, run: r.run})
	}
	c.step(Event{Kind: kind, Key: r.key, Run: r.run})
}

func (c *chaos) exit(i int, end Class, leaked bool) {
	r := c.running[i]
	c.running = slices.Delete(c.running, i, i+1)
	c.step(Event{Kind: Exited, Key: r.key, Run: r.run, End: end, Leaked: leaked})
}

func (c *chaos) advance(d time.Duration) {
	c.now += Time(d)
	for k, at := range c.timers {
		if at <= c.now {
			delete(c.timers, k)
			c.step(Event{Kind: Timer, Key: k})
		}
	}
}

// quiesce lets everything happen that is waited for.
func (c *chaos) quiesce() {
	for range 10_000 {
		switch asked := slices.IndexFunc(c.running, func(r chaosRun) bool { return r.asked }); {
		case len(c.starting) > 0:
			c.answer(0, Started)
		case asked >= 0:
			c.exit(asked, Shutdown, false)
		case len(c.timers) > 0:
			c.advance(time.Hour)
		default:
			return
		}
	}
	c.t.Fatalf("no rest: %+v", c.s)
}

func chaosPlay(t testing.TB, data []byte) {
	if len(data) < 4 {
		return
	}
	f := Flags{
		Strategy: Strategy(data[0] & 3), AutoShutdown: AutoShutdown(data[0] >> 2 & 3 % 3),
		Max: int(data[1] & 15), Period: time.Minute, LeakEscalates: data[1]&16 != 0,
		StopTogether: data[0]&128 != 0,
	}
	if data[1]&32 != 0 {
		f.Backoff = Backoff{Initial: time.Second, Max: time.Minute, Factor: 2, Attempts: int(data[1] >> 6)}
	}
	param := func(id string, b byte) Params {
		p := params(id, b, f.AutoShutdown)
		p.StartTimeout = time.Duration(b>>2&1) * time.Second
		p.StartGrace = time.Duration(b>>3&1) * time.Second
		if b&128 != 0 {
			p.Shutdown = Infinity
		}
		return p
	}
	n := int(data[0]>>4) & 7
	data = data[2:]
	var ps []Params
	for i := 0; i < n && len(data) > 0; i++ {
		ps = append(ps, param(ids[i], data[0]))
		data = data[1:]
	}
	if f.Strategy == Dynamic {
		ps = nil
	}
	c := &chaos{t: t, s: New(f, ps), now: 1, timers: map[Key]Time{}, open: map[uint64]bool{}}
	c.step(Event{Kind: Begin})
	for ; len(data) >= 2; data = data[2:] {
		a, b := data[0], data[1]
		switch a & 15 {
		case 0, 1, 2, 3, 4:
			if len(c.starting) > 0 {
				kinds := []EventKind{Started, Started, Started, StartFailed, Ignored}
				c.answer(int(b)%len(c.starting), kinds[a&15])
			}
		case 5, 6, 7, 8:
			if len(c.running) > 0 {
				c.exit(int(b)%len(c.running), Class(a>>4%5), a == 5)
			}
		case 9:
			c.advance(time.Duration(b) * 100 * time.Millisecond)
		case 10:
			if len(c.late) > 0 {
				r := c.late[0]
				if b&1 == 0 { // it comes up, and must be killed: see effect
					n := len(c.late)
					if c.step(Event{Kind: Started, Key: r.key, Run: r.run}); len(c.late) == n {
						t.Fatal("a late instance was not killed")
					}
				} else {
					c.late = c.late[1:]
					c.step(Event{Kind: StartFailed, Key: r.key, Run: r.run})
				}
			}
		case 15:
			switch {
			case b < 8:
				c.step(Event{Kind: Stop})
			case b < 12:
				c.step(Event{Kind: Kill})
			}
		default:
			c.calls++
			if !c.ended {
				c.open[c.calls] = true
				c.step(Event{Kind: Request, Rand: uint64(b) << 56, Call: Call{
					From: c.calls, Op: Op(a >> 4 & 3),
					ID: ids[b&7], Key: Key(b & 15), Params: param(ids[b&7], b),
				}})
			}
		}
	}
	c.quiesce()
	if !c.ended {
		if c.s.Work != Idle || len(c.s.Deferred) > 0 || len(c.open) > 0 {
			t.Fatalf("at rest, but %+v, requests %v", c.s, c.open)
		}
		c.step(Event{Kind: Stop})
		c.quiesce()
	}
	if !c.ended {
		t.Fatalf("stopped, but %+v", c.s)
	}
}

// FuzzAnyOrder checks, with answers in any order and at any time, that no child
// runs twice, that every request is answered once, and that the supervisor
// comes to rest and to an end.
func FuzzAnyOrder(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 64 {
		f.Add(randomBytes(r, 16+r.IntN(80)))
	}
	f.Fuzz(func(t *testing.T, data []byte) { chaosPlay(t, data) })
}

// TestAnyOrder is FuzzAnyOrder on random bytes.
func TestAnyOrder(t *testing.T) {
	runs := modelRuns(t)
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range runs {
		data := randomBytes(r, 8+r.IntN(200))
		func() {
			defer func() {
				if t.Failed() {
					t.Logf("run %d of seed %d, data %#v", i, seed, data)
				}
			}()
			chaosPlay(t, data)
		}()
	}
	t.Logf("%d executions", runs)
}
