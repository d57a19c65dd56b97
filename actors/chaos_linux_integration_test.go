//go:build linux

package actors_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
	"golang.org/x/sys/unix"
)

// Chaos: four processes with 50 actors each tell, ask, monitor and fail each
// other, and are killed. What they count lives in memory that they share, so that it
// outlives them.
const (
	chaosProcesses = 4
	chaosActors    = 50
	chaosIDs       = 768
	chaosBound     = 64
	chaosDeadline  = 3 * time.Second
	// chaosWindow is what a process that dies can have had of another's messages, on
	// both ends of the lane and in mailboxes.
	chaosWindow = 2*16384 + chaosActors*chaosBound

	chaosMemory = "CHAOS_MEMORY"
)

// Phases, in order.
const (
	chaosRun uint64 = iota
	chaosQuiet
	chaosEnd
)

// chaosCounters is the shared memory. Rows are by process that sends or waits,
// columns by process that is meant.
type chaosCounters struct {
	phase                 atomic.Uint64
	holder                [chaosProcesses]atomic.Uint64 // slot -> ID
	quiet                 [chaosIDs]atomic.Uint64
	sent, handled, dead   [chaosIDs][chaosIDs]atomic.Uint64
	asks, ended, late     [chaosIDs]atomic.Uint64
	answered              [chaosIDs]atomic.Uint64
	monitors, downs, more [chaosIDs]atomic.Uint64
	untyped               [chaosIDs]atomic.Uint64
}

func mapChaos(f *os.File) (*chaosCounters, error) {
	b, err := unix.Mmap(int(f.Fd()), 0, int(unsafe.Sizeof(chaosCounters{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*chaosCounters)(unsafe.Pointer(&b[0])), nil
}

type (
	chaosTell  struct{ N int }
	chaosAsk   struct{ N int }
	chaosPanic struct{ N int }
)

func init() {
	actors.RegisterType[chaosTell]("test.chaos.tell")
	actors.RegisterType[chaosAsk]("test.chaos.ask")
	actors.RegisterType[chaosPanic]("test.chaos.panic")
}

func chaosID(pid *actor.PID) int {
	if pid == nil {
		return 0
	}
	id, _ := strconv.Atoi(pid.Address)
	return id
}

// chaosHook counts dead letters of tells.
func chaosHook(c *chaosCounters) func(actors.DeadLetter) {
	return func(d actors.DeadLetter) {
		if d.Type == "actors_test.chaosTell" {
			c.dead[chaosID(d.Sender)][chaosID(d.Target)].Add(1)
		}
	}
}

// chaosRole is the life of one process.
type chaosRole struct {
	c      *chaosCounters
	s      *actors.System
	me     int
	asks   sync.WaitGroup
	flight chan struct{}
	pulse  atomic.Int64 // see beat
}

// chaosBeat is the pulse of a process: the clock by which it is late. One that the machine
// does not let run for a while has none meanwhile.
const chaosBeat = time.Millisecond

func (r *chaosRole) beat() {
	for range time.Tick(chaosBeat) {
		r.pulse.Add(1)
	}
}

func (r *chaosRole) receive(ctx actor.Context) {
	switch ctx.Message().(type) {
	case chaosTell:
		r.c.handled[chaosID(ctx.Sender())][r.me].Add(1)
	case chaosAsk:
		if rand.IntN(50) == 0 {
			return // an ask that is not answered
		}
		ctx.Respond(ctx.Message())
	case chaosPanic:
		panic("chaos")
	}
}

// keep has an actor of a name for as long as the process runs.
func (r *chaosRole) keep(name string) {
	ctx := context.Background()
	for r.c.phase.Load() < chaosEnd {
		pid, err := r.s.SpawnSpec(ctx, actors.Spec{Name: name, Bound: chaosBound, New: receive(r.receive)})
		if err != nil {
			return // shut down
		}
		<-r.s.Monitor(pid).C
	}
}

func (r *chaosRole) anybody() *actor.PID {
	id := r.c.holder[rand.IntN(chaosProcesses)].Load()
	return actor.NewPID(strconv.FormatUint(id, 10), "c"+strconv.Itoa(rand.IntN(chaosActors)))
}

func (r *chaosRole) drive() {
	root := r.s.Actor().Root
	for n := 0; r.c.phase.Load() == chaosRun; n++ {
		to := r.anybody()
		switch k := rand.IntN(1000); {
		case k < 2:
			root.Send(to, chaosPanic{n})
		case k < 12:
			r.c.monitors[r.me].Add(1)
			m := r.s.Monitor(to)
			go func() { // ends with the process
				<-m.C
				r.c.downs[r.me].Add(1)
				<-m.C
				r.c.more[r.me].Add(1)
			}()
		case k < 200:
			r.ask(to, n)
		default:
			r.c.sent[r.me][chaosID(to)].Add(1)
			root.RequestWithCustomSender(to, chaosTell{n}, actor.NewPID(r.s.Address(), "sender"))
		}
	}
}

func (r *chaosRole) ask(to *actor.PID, n int) {
	r.flight <- struct{}{} // so many at once
	r.c.asks[r.me].Add(1)
	r.asks.Go(func() {
		defer func() { <-r.flight }()
		ctx, cancel := context.WithTimeout(context.Background(), chaosDeadline)
		defer cancel()
		var over atomic.Int64 // the pulse at the deadline
		stop := context.AfterFunc(ctx, func() { over.Store(r.pulse.Load()) })
		v, err := r.s.Ask(ctx, to, chaosAsk{n})
		stop()
		if at := over.Load(); at != 0 && r.pulse.Load()-at > int64(chaosDeadline/chaosBeat) {
			r.c.late[r.me].Add(1) // as late again as it was allowed to take
		}
		switch {
		case err == nil && v == chaosAsk{n}:
			r.c.answered[r.me].Add(1)
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, actors.ErrDown), errors.Is(err, actors.ErrNoActor),
			errors.Is(err, actors.ErrBusy), errors.Is(err, actors.ErrFull):
		default:
			fmt.Fprintln(os.Stderr, "chaos: ask:", v, err)
			r.c.untyped[r.me].Add(1)
		}
		r.c.ended[r.me].Add(1)
	})
}

func chaosSystem(cfg *actors.Config) {
	cfg.Logger = slog.New(slog.DiscardHandler)
	f, err := os.OpenFile(os.Getenv(chaosMemory), os.O_RDWR, 0)
	if err != nil {
		panic(err)
	}
	c, err := mapChaos(f)
	if err != nil {
		panic(err)
	}
	chaosMapped = c
	cfg.Hooks.DeadLetter = chaosHook(c)
}

var chaosMapped *chaosCounters // of this process

func chaos(s *actors.System) error {
	me, err := strconv.Atoi(s.Address())
	if err != nil {
		return err
	}
	r := &chaosRole{c: chaosMapped, s: s, me: me, flight: make(chan struct{}, 512)}
	if _, err := s.Spawn(context.Background(), "sender", receive(func(actor.Context) {})); err != nil {
		return err
	}
	r.pulse.Store(1)
	go r.beat() // ends with the process, as all below
	for i := range chaosActors {
		go r.keep("c" + strconv.Itoa(i))
	}
	var drivers sync.WaitGroup
	for range 2 {
		drivers.Go(r.drive)
	}
	go func() {
		drivers.Wait()
		r.asks.Wait()
		r.c.quiet[me].Store(1)
		for r.c.phase.Load() < chaosEnd {
			time.Sleep(time.Millisecond)
		}
		for i := range chaosActors {
			_ = s.Stop(context.Background(), actor.NewPID(s.Address(), "c"+strconv.Itoa(i)))
		}
	}()
	return nil
}

func TestChaos(t *testing.T) {
	length := 5 * time.Second
	switch {
	case os.Getenv("COPPICE_SOAK") == "1":
		length = time.Minute
	case testing.Short():
		length = 2 * time.Second
	}
	fd, err := unix.MemfdCreate("chaos", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "chaos")
	defer f.Close()
	if err := f.Truncate(int64(unsafe.Sizeof(chaosCounters{}))); err != nil {
		t.Fatal(err)
	}
	c, err := mapChaos(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(chaosMemory, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd))
	master := newSystem(t, actors.Config{Address: "0", Hooks: actors.Hooks{DeadLetter: chaosHook(c)}})
	var peers [chaosProcesses]*peerProcess
	last := 0
	start := func(slot int) {
		last++
		peers[slot] = startPeer(t, master, last, "chaos")
		c.holder[slot].Store(uint64(last))
	}
	for slot := range chaosProcesses {
		start(slot)
	}
	kills := 0
	for end := time.Now().Add(length); time.Now().Before(end) && last < chaosIDs-2; kills++ {
		slot := rand.IntN(chaosProcesses)
		id := last + 1
		mon := master.Monitor(actors.ProcessPID(peers[slot].Address))
		peers[slot].Kill()
		if d := next(t, mon.C); d.Reason.Signal != 9 {
			t.Fatalf("Down %v", d.Reason)
		}
		start(slot)
		// On with the next when this one has done something.
		settled(t, "a replacement does nothing", func() bool { return c.answered[id].Load() > 100 })
	}

	c.phase.Store(chaosQuiet)
	var live [chaosIDs]bool
	for _, p := range peers {
		id, _ := strconv.Atoi(p.Address)
		live[id] = true
		settled(t, "a process does not become quiet", func() bool { return c.quiet[id].Load() == 1 })
	}
	type sums struct{ sent, handled, dead, doubt uint64 }
	var total sums
	for from := 1; from <= last; from++ {
		for to := 1; to <= last; to++ {
			load := func() sums {
				return sums{c.sent[from][to].Load(), c.handled[from][to].Load(), c.dead[from][to].Load(), 0}
			}
			if live[from] && live[to] {
				settled(t, fmt.Sprintf("from %d to %d: %+v", from, to, load()), func() bool {
					s := load()
					return s.sent == s.handled+s.dead
				})
			}
			s := load()
			if s.sent < s.handled+s.dead {
				t.Errorf("from %d to %d more arrived than was sent: %+v", from, to, s)
				continue
			}
			if s.doubt = s.sent - s.handled - s.dead; s.doubt > chaosWindow {
				t.Errorf("from %d to %d more is in doubt than a window: %+v", from, to, s)
			}
			total = sums{total.sent + s.sent, total.handled + s.handled, total.dead + s.dead, total.doubt + s.doubt}
		}
	}
	c.phase.Store(chaosEnd)
	var asks, answered, monitors uint64
	for id := 1; id <= last; id++ {
		if n := c.late[id].Load() + c.untyped[id].Load(); n != 0 {
			t.Errorf("process %d: %d asks ended late, %d without a typed error", id, c.late[id].Load(), c.untyped[id].Load())
		}
		asks, answered, monitors = asks+c.asks[id].Load(), answered+c.answered[id].Load(), monitors+c.monitors[id].Load()
		if !live[id] {
			continue
		}
		if a, e := c.asks[id].Load(), c.ended[id].Load(); a != e {
			t.Errorf("process %d: %d asks begun, %d ended", id, a, e)
		}
		settled(t, "a monitor does not fire", func() bool { return c.downs[id].Load() == c.monitors[id].Load() })
	}
	for id := range c.more {
		if n := c.more[id].Load(); n != 0 {
			t.Errorf("process %d: %d monitors fired twice", id, n)
		}
	}
	t.Logf("%d processes killed; tells: %d sent = %d handled + %d dead letters + %d in doubt; %d asks, %d answered; %d monitors",
		kills, total.sent, total.handled, total.dead, total.doubt, asks, answered, monitors)
}
