package hosts_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts"
)

// TestManyPairs: more pairs of processes talk over a trunk than it has lanes, one after the other
// and some at a time, from both sides: none is without a lane, and lanes that are in use stay. With
// COPPICE_SOAK=1 they are 5,041 over a whole trunk.
func TestManyPairs(t *testing.T) {
	lanes, processes := 32, 12
	if testing.Short() {
		lanes, processes = 16, 6
	}
	if os.Getenv("COPPICE_SOAK") == "1" {
		lanes, processes = 0, 71
	}
	c := newNetwork(t, 0)
	c.silence = patience
	c.edit = func(cfg *hosts.Config) { cfg.SetMaxLanes(lanes) }
	a, b := c.start("a", "boota"), c.start("b", "bootb")
	var ofA, ofB []*child
	for range processes {
		ofA, ofB = append(ofA, a.child("a")), append(ofB, b.child("b"))
	}
	of := map[*child]*actor.PID{}
	for _, p := range append(append([]*child{}, ofA...), ofB...) {
		of[p] = spawn(t, p.System, "echo", echo)
	}
	answers(t, ofA[0].System, of[ofB[0]])
	inUse := ofA[0].Monitor(of[ofB[0]])
	asked := held(t, ofA[1].System, of[ofB[1]])
	var asks atomic.Int64
	var wg sync.WaitGroup
	for i := range ofA {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			for j := range ofB {
				from, to := ofA[i], ofB[(i+j)%len(ofB)]
				if rnd.IntN(2) == 0 {
					from, to = to, from
				}
				if v, err := from.Ask(t.Context(), of[to], "x"); err != nil || v != "x" {
					t.Errorf("%s asks %s: %v, %v", from.Address(), to.Address(), v, err)
				}
				asks.Add(1)
			}
		})
		if i%4 == 3 {
			wg.Wait()
		}
	}
	wg.Wait()
	select {
	case err := <-asked:
		t.Errorf("the ask in flight ended: %v", err)
	default:
	}
	ofB[0].kill(killed)
	ofB[1].kill(killed)
	if r := next(t, "Down", inUse.C).Reason; r != killed {
		t.Errorf("Down: %v", r)
	}
	if err := next(t, "the ask", asked); !errors.Is(err, actors.ErrDown) {
		t.Errorf("the ask: %v", err)
	}
	t.Logf("%d pairs, %d lanes at the end", asks.Load(), a.stats("b").Lanes)
}

// TestBothOpen: of a lane that both processes ask for at once one remains, and what is asked and
// watched on it goes on, however late a gateway comes to ask the other for the second one.
func TestBothOpen(t *testing.T) {
	c := newNetwork(t, patience)
	var late atomic.Pointer[chan struct{}]
	reached := make(chan struct{}, 1)
	c.edit = func(cfg *hosts.Config) {
		if cfg.Name == "b" { // the lane of the other goes first
			cfg.OnOpening(func() {
				if wait := late.Swap(nil); wait != nil {
					reached <- struct{}{}
					<-*wait
				}
			})
		}
	}
	a, b := c.start("a", "boota"), c.start("b", "bootb")
	x, y, other := a.child("a"), b.child("b"), b.child("b")
	atX, atY := spawn(t, x.System, "echo", echo), spawn(t, y.System, "echo", echo)
	far := a.child("a")
	answers(t, other.System, spawn(t, far.System, "echo", echo)) // there are trunks on both sides
	answers(t, far.System, spawn(t, other.System, "echo", echo))
	release := make(chan struct{})
	late.Store(&release)
	of := make(chan error, 1)
	go func() {
		_, err := y.Ask(t.Context(), atX, "x")
		of <- err
	}()
	next(t, "y's gateway opens", reached)
	answers(t, x.System, atY)
	if err := next(t, "y's ask", of); err != nil {
		t.Error(err)
	}
	asked, back := held(t, x.System, atY), held(t, y.System, atX)
	answers(t, x.System, atY) // they are there
	answers(t, y.System, atX)
	close(release)
	// By then what the gateway of b may have asked for has come to a.
	for range 3 {
		answers(t, b.child("b").System, atX)
	}
	for range 3 {
		answers(t, x.System, atY)
		answers(t, y.System, atX)
	}
	select {
	case err := <-asked:
		t.Errorf("the ask of x: %v", err)
	case err := <-back:
		t.Errorf("the ask of y: %v", err)
	default:
	}
	x.kill(killed)
	if err := next(t, "the ask", back); !errors.Is(err, actors.ErrDown) || errors.Is(err, actors.ErrLane) {
		t.Errorf("the ask of y: %v", err)
	}
}
