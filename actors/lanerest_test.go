package actors_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
)

// TestIdleLanes: a lane to another host on which nothing goes is left by both processes, and the
// next message makes another.
func TestIdleLanes(t *testing.T) {
	c := newCluster(t, 1, "a", "b")
	a, b := c.at("boota"), c.at("bootb")
	for name, pair := range map[string][2]*actors.System{
		"children": {a.Child(1), b.Child(1)}, "masters": {a.Master, b.Master}, "master and child": {b.Master, a.Child(1)},
	} {
		x, y := pair[0], pair[1]
		for _, s := range pair {
			actors.SetLaneIdle(s, time.Millisecond)
			_, _ = s.Spawn(testContext(t), "echo", echo) // it may be there
		}
		for range 3 {
			for _, way := range [][2]*actors.System{{x, y}, {y, x}} {
				settled(t, name+": no trunk", func() bool {
					v, err := way[0].Ask(testContext(t), actor.NewPID(way[1].Address(), "echo"), "x")
					return err == nil && v == "x"
				})
				settled(t, name+": the lane stays", func() bool {
					return !actors.HasLink(x, y.Address()) && !actors.HasLink(y, x.Address())
				})
			}
		}
		settled(t, name+": a lane is remembered", func() bool { return x.LostLanes() == 0 && y.LostLanes() == 0 })
		if n := x.Stats().Malformed + y.Stats().Malformed; n > 0 {
			t.Errorf("%s: %d frames count as malformed", name, n)
		}
	}
}

// TestLaneInUse: a lane is not left while an end waits for what the end of the other process would
// end, on whichever side.
func TestLaneInUse(t *testing.T) {
	c := newCluster(t, 2, "a", "b")
	a, b := c.at("boota"), c.at("bootb")
	for i, pair := range [][2]*testHost{{a, b}, {b, a}} {
		x, y := pair[0].Child(1+i), pair[1].Child(1+i)
		pid := spawn(t, y, "echo", echo)
		settled(t, "no trunk", func() bool { v, err := x.Ask(testContext(t), pid, "x"); return err == nil && v == "x" })
		look := func() {
			for range 5 {
				actors.Leave(x, y.Address())
				actors.Leave(y, x.Address())
				_ = x.Stop(testContext(t), actor.NewPID(y.Address(), "nobody")) // behind the proposal
				_ = y.Stop(testContext(t), actor.NewPID(x.Address(), "nobody"))
			}
		}
		held := askHeld(t, testContext(t), x, pid)
		lanes := c.lanes.Load()
		look()
		downs := []*actors.Monitor{x.Monitor(pid), x.Monitor(actors.ProcessPID(y.Address()))}
		look()
		if n := c.lanes.Load() - lanes; n > 0 {
			t.Errorf("it was left %d times", n)
		}
		pair[1].Kill(1+i, killedBy9)
		for _, m := range downs {
			if r := next(t, m.C).Reason; r != killedBy9 {
				t.Errorf("Down: %v", r)
			}
		}
		wantErr(t, next(t, held), actors.ErrDown)
	}
}

// TestLeftInTheMiddle: while lanes are left again and again, whatever is sent meanwhile, from both
// sides, arrives once and in order, each ask is answered, and each monitor hears of an end.
func TestLeftInTheMiddle(t *testing.T) {
	const senders, messages = 2, 100
	c := newCluster(t, 1, "a", "b")
	systems := []*actors.System{c.at("boota").Child(1), c.at("bootb").Child(1)}
	var got [2]atomic.Int64
	for i, s := range systems {
		last := make(map[string]int)
		spawn(t, s, "sink", receive(func(ctx actor.Context) {
			if text, ok := ctx.Message().(string); ok {
				var from, n int
				if _, err := fmt.Sscan(text, &from, &n); err != nil || n != last[fmt.Sprint(from)]+1 {
					t.Errorf("%q after %d: %v", text, last[fmt.Sprint(from)], err)
				}
				last[fmt.Sprint(from)] = n
				got[i].Add(1)
				return
			}
			ctx.Respond(ctx.Message())
		}))
	}
	settled(t, "no trunk", func() bool {
		v, err := systems[0].Ask(testContext(t), actor.NewPID(systems[1].Address(), "sink"), 1)
		return err == nil && v == 1
	})
	lanes := c.lanes.Load()
	var wg sync.WaitGroup
	for i, s := range systems {
		to := actor.NewPID(systems[1-i].Address(), "sink")
		for from := range senders {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(from), uint64(i)))
				for n := 1; n <= messages; n++ {
					actors.Leave(s, to.Address)
					for range rnd.IntN(100) { // wherever that is by then
						yield()
					}
					if err := s.Send(testContext(t), to, fmt.Sprint(from, " ", n)); err != nil {
						t.Error(err)
					}
					switch rnd.IntN(8) {
					case 0:
						if v, err := s.Ask(testContext(t), to, n); err != nil || v != n {
							t.Errorf("%v, %v", v, err)
						}
					case 1:
						m := s.Monitor(actor.NewPID(to.Address, "nobody"))
						if r := next(t, m.C).Reason; !errors.Is(r.Err(), actors.ErrNoActor) {
							t.Errorf("Down: %v", r)
						}
					}
				}
			})
		}
	}
	wg.Wait()
	for i := range got {
		settled(t, "a message is lost", func() bool { return got[i].Load() >= senders*messages })
	}
	n := c.lanes.Load() - lanes
	if n == 0 {
		t.Error("no lane was left")
	}
	t.Logf("%d lanes", n)
}

// TestLeftStepByStep: what is sent between any two steps goes by the next lane, in order, or keeps
// this one.
func TestLeftStepByStep(t *testing.T) {
	for name, play := range map[string]func(s *leaving){
		"the other one sends while it is held": func(s *leaving) {
			s.stop(actors.LaneOver)
			actors.Leave(s.x, s.y.Address())
			s.wait()
			m := s.y.Monitor(actor.NewPID(s.x.Address(), "nobody"))
			sent := make(chan error, 1)
			go func() { sent <- s.y.Send(testContext(s.t), actor.NewPID(s.x.Address(), "log"), "1") }()
			s.release()
			wantErr(s.t, next(s.t, m.C).Reason.Err(), actors.ErrNoActor)
			if err := next(s.t, sent); err != nil {
				t.Error(err)
			}
			s.handles(s.atX, "1")
		},
		"the leader needs it after all": func(s *leaving) {
			s.stop(actors.LaneHeld)
			actors.Leave(s.x, s.y.Address())
			s.wait()
			m := s.x.Monitor(actors.ProcessPID(s.y.Address()))
			lanes := s.c.lanes.Load()
			s.release()
			if err := s.y.Send(testContext(s.t), actor.NewPID(s.x.Address(), "log"), "2"); err != nil {
				t.Error(err)
			}
			s.handles(s.atX, "2")
			if s.c.lanes.Load() != lanes {
				t.Error("it was left")
			}
			s.c.at("bootb").Kill(1, killedBy9)
			if r := next(s.t, m.C).Reason; r != killedBy9 {
				t.Errorf("Down: %v", r)
			}
		},
		"the next lane is there first": func(s *leaving) {
			s.stop(actors.LaneHeld)
			actors.Leave(s.x, s.y.Address())
			s.wait()
			release := s.release
			s.stop(0) // nothing of the data of this lane arrives
			to := actor.NewPID(s.y.Address(), "log")
			if err := s.x.Send(testContext(s.t), to, "3"); err != nil {
				t.Error(err)
			}
			s.wait()
			number := actors.LaneNumber(s.y, s.x.Address())
			release()
			settled(s.t, "it is not left", func() bool { return !actors.HasLink(s.x, s.y.Address()) })
			if err := s.x.Send(testContext(s.t), to, "4"); err != nil {
				t.Error(err)
			}
			settled(s.t, "no other lane", func() bool { return actors.LaneNumber(s.y, s.x.Address()) > number })
			for range 1000 {
				yield() // it could be handled too early
			}
			s.release()
			s.handles(s.atY, "3")
			s.handles(s.atY, "4")
		},
		"the trunk is lost while it is held": func(s *leaving) {
			s.stop(actors.LaneOver)
			actors.Leave(s.x, s.y.Address())
			s.wait()
			held := make(chan error, 1)
			go func() {
				_, err := s.y.Ask(testContext(s.t), actor.NewPID(s.x.Address(), "log"), 1)
				held <- err
			}()
			settled(s.t, "it is not asked", func() bool { return actors.Asking(s.y, s.x.Address()) })
			s.release()
			s.c.lose()
			if err := next(s.t, held); err != nil {
				wantErr(s.t, err, actors.ErrUnreachable)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1, "a", "b")
			s := &leaving{t: t, c: c, x: c.at("boota").Child(1), y: c.at("bootb").Child(1), atX: make(chan string, 9), atY: make(chan string, 9)}
			for _, at := range []struct {
				s   *actors.System
				log chan string
			}{{s.x, s.atX}, {s.y, s.atY}} {
				spawn(t, at.s, "log", receive(func(ctx actor.Context) {
					if text, ok := ctx.Message().(string); ok {
						at.log <- text
					} else {
						ctx.Respond(ctx.Message())
					}
				}))
			}
			settled(t, "no trunk", func() bool {
				v, err := s.x.Ask(testContext(s.t), actor.NewPID(s.y.Address(), "log"), 1)
				return err == nil && v == 1
			})
			play(s)
		})
	}
}

// leaving is a lane of x, which leads, and y that is to be left.
type leaving struct {
	t        *testing.T
	c        *testCluster
	x, y     *actors.System
	atX, atY chan string // what came
	wait     func()      // until a frame is stopped
	release  func()
}

// stop stops frames of this lane, in the gateway: those that say op; 0: data of x.
func (s *leaving) stop(op byte) {
	stopped, released := make(chan struct{}), make(chan struct{})
	var once, over sync.Once
	gate := func(from string, f *fdipc.Frame) {
		if says := actors.LaneOp(f); says == op && (op != 0 || from == s.x.Address() && f.Lane == fdipc.Data) {
			once.Do(func() { close(stopped) })
			<-released
		}
	}
	s.c.gate.Store(&gate)
	s.wait = func() { next(s.t, stopped); s.c.gate.Store(nil) }
	s.release = func() { over.Do(func() { close(released) }) }
	s.t.Cleanup(s.release)
}

func (s *leaving) handles(at chan string, want string) {
	s.t.Helper()
	if got := next(s.t, at); got != want {
		s.t.Errorf("got %q, want %q", got, want)
	}
}
