package actors_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
)

// A ledger is an actor that hands over. It notes the numbers that each sender tells it, which must
// come in order, and answers what it is asked.
type ledger struct {
	last  map[string]int
	wrong []string
}

type entry struct {
	From   string
	Number int
}

func init() { actors.RegisterType[entry]("test.entry") }

func newLedger() actor.Actor { return &ledger{last: map[string]int{}} }

func (l *ledger) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case entry:
		if last := l.last[m.From]; m.Number != last+1 && len(l.wrong) < 10 {
			l.wrong = append(l.wrong, fmt.Sprintf("%s: %d after %d", m.From, m.Number, last))
		}
		l.last[m.From] = m.Number
	case int:
		ctx.Respond(m)
	case keep: // what it has
		b, _ := json.Marshal([]any{l.last, l.wrong})
		ctx.Respond(b)
	}
}

func (l *ledger) HandOver(actor.Context) (h actors.Handover, err error) {
	h.State, err = json.Marshal([]any{l.last, l.wrong})
	return h, err
}

func (l *ledger) TakeOver(_ actor.Context, h actors.Handover) error {
	return json.Unmarshal(h.State, &[]any{&l.last, &l.wrong})
}

// TestReplaceModel: while children tell, ask, watch and look up without a pause, the master is
// replaced again and again, or goes on after all. Each tell arrives once and in order, each ask is
// answered, each monitor fires once.
func TestReplaceModel(t *testing.T) {
	actors.ShortSettle(t)
	for seed := range uint64(4) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 20))
			tree := newTree(t, 3)
			ctx := testContext(t)
			starting := func(s *actors.System) {
				spawn(t, s, "l0", newLedger)
				spawn(t, s, "l1", newLedger)
				spawn(t, s, "plain", echo)
			}
			starting(tree.Master)
			var stop atomic.Bool
			var working sync.WaitGroup
			sent := map[string]*[2]int{}
			monitors, downs := new(atomic.Int64), new(atomic.Int64)
			for slot := range 3 {
				spawn(t, tree.Child(slot), "echo", echo)
			}
			for slot := range 3 {
				s := tree.Child(slot)
				watcher := spawn(t, s, "watcher", func() actor.Actor { return &counting{s, monitors, downs} })
				for w := range 2 {
					from, rng := fmt.Sprintf("%d/%d", slot, w), rand.New(rand.NewPCG(seed, uint64(slot*10+w)))
					numbers := new([2]int)
					sent[from] = numbers
					working.Go(func() {
						for !stop.Load() && !t.Failed() {
							i := rng.IntN(2)
							pid := actor.NewPID("0", "l"+strconv.Itoa(i))
							if rng.IntN(2) == 0 {
								pid = s.Lookup(pid.Id)
							}
							var err error
							switch op := rng.IntN(20); {
							case op < 12:
								numbers[i]++
								err = s.Send(ctx, pid, entry{from, numbers[i]})
							case op < 16:
								n := rng.Int()
								var v int
								if v, err = actors.Ask[int](ctx, s, pid, n); err == nil && v != n {
									err = fmt.Errorf("answer %d to %d", v, n)
								}
							case op < 17:
								_, err = s.Ask(ctx, s.Lookup("plain"), "x")
							case op < 18:
								_, err = s.Ask(ctx, s.Lookup(fmt.Sprintf("test/%d/echo", (slot+1)%3)), "x")
							case op < 19:
								err = s.Reregister(ctx, "name", s.Process())
							default:
								target := []*actor.PID{pid, actor.NewPID("0", "plain")}[rng.IntN(2)]
								err = s.Send(ctx, watcher, target)
							}
							if err != nil {
								t.Errorf("%s: %v", from, err)
							}
						}
					})
				}
			}
			for range 8 {
				for before := monitors.Load(); monitors.Load() < before+int64(1+rng.IntN(4)) && !t.Failed(); {
					ask(t, tree.Child(rng.IntN(3)), actor.NewPID("0", "l0"), 1)
				}
				state := tree.mustSuspend()
				if rng.IntN(4) == 0 {
					tree.Master.Resume()
					tree.goOn()
					continue
				}
				tree.replace(state, starting)
			}
			stop.Store(true)
			working.Wait()
			for i := range 2 {
				var last map[string]int
				var wrong []string
				b, _ := ask(t, tree.Child(0), actor.NewPID("0", "l"+strconv.Itoa(i)), keep{}).([]byte)
				if err := json.Unmarshal(b, &[]any{&last, &wrong}); err != nil || wrong != nil {
					t.Errorf("out of order: %v, %v", wrong, err)
				}
				for from, numbers := range sent {
					settled(t, "what was sent has not come", func() bool { // another child's may still be on its way
						b, _ := ask(t, tree.Child(int(from[0]-'0')), actor.NewPID("0", "l"+strconv.Itoa(i)), keep{}).([]byte)
						err := json.Unmarshal(b, &[]any{&last, &wrong})
						return err == nil && last[from] == numbers[i]
					})
				}
			}
			for slot := range 3 { // behind what it was told to watch
				ask(t, tree.Child(slot), actor.NewPID(tree.Child(slot).Address(), "watcher"), 1)
			}
			for _, id := range []string{"l0", "l1", "plain"} {
				if err := tree.Master.Stop(ctx, actor.NewPID("0", id)); err != nil {
					t.Error(err)
				}
			}
			settled(t, "a monitor does not fire", func() bool { return downs.Load() == monitors.Load() })
			for slot := range 3 {
				if n := actors.Inbound(tree.Child(slot)); n != 0 {
					t.Errorf("%d asks are open", n)
				}
			}
			if n := actors.Inbound(tree.Master) + actors.Watched(tree.Master); n != 0 {
				t.Errorf("%d asks and monitors are open in the master", n)
			}
		})
	}
}

// counting monitors each PID that it is sent, and counts the Downs.
type counting struct {
	sys             *actors.System
	monitors, downs *atomic.Int64
}

func (c *counting) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.PID:
		c.sys.MonitorFrom(ctx, m)
		c.monitors.Add(1)
	case *actors.Down:
		c.downs.Add(1)
		if errors.Is(m.Reason.Cause, actors.ErrNoActor) {
			panic("no actor") // there is always one
		}
	case int:
		ctx.Respond(m)
	}
}
