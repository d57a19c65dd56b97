//go:build linux

package hosts_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// benchVar: the workers of a measure, those of b serve.
const benchVar = "COPPICE_TEST_BENCH"

const benchTime = 2 * time.Second

// parcel is a message of 64 bytes.
type parcel struct{ Body []byte }

func init() { actors.RegisterType[parcel]("hosts_test.parcel") }

// benchServe has an actor that counts, and one that is slow.
func benchServe(ctx context.Context, w *coppice.Worker) error {
	var got int
	for name, spec := range map[string]struct {
		bound   int
		receive func(c actor.Context)
	}{
		"echo": {receive: func(c actor.Context) { // and how many parcels came before
			switch m := c.Message().(type) {
			case parcel:
				got++
			case string:
				c.Respond(got)
			case int:
				c.Respond(m)
			}
		}},
		"slow": {bound: 1000, receive: func(c actor.Context) {
			if _, ok := c.Message().(parcel); ok {
				time.Sleep(time.Millisecond)
			}
		}},
	} {
		make := func() actor.Actor { return actor.ReceiveFunc(spec.receive) }
		if _, err := w.System().SpawnSpec(ctx, actors.Spec{Name: name, Bound: spec.bound, New: make}); err != nil {
			return err
		}
	}
	if err := w.Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// bench prints asks and tells in a second, and those beside a slow actor.
func bench(ctx context.Context, w *coppice.Worker) error {
	if err := w.Ready(); err != nil || w.Slot() != 1 {
		<-ctx.Done()
		return err
	}
	s := w.System()
	pid, slow := s.LookupAt("b", "web/1/echo"), s.LookupAt("b", "web/0/slow")
	for { // until there is a trunk
		if v, err := s.Ask(ctx, pid, 1); err == nil && v == 1 {
			break
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	pid, err := s.Whereis(ctx, "@b/web/1/echo")
	if err != nil {
		return err
	}
	var n atomic.Int64
	var wg sync.WaitGroup
	cpu := cpuTime()
	stop := time.Now().Add(benchTime)
	for range 64 {
		wg.Go(func() {
			for time.Now().Before(stop) {
				if _, err := s.Ask(ctx, pid, 1); err != nil {
					fmt.Println("ask:", err)
					return
				}
				n.Add(1)
			}
		})
	}
	wg.Wait()
	fmt.Printf("asks %d/s at %v\n", n.Load()/int64(benchTime/time.Second), (cpuTime()-cpu)/time.Duration(n.Load()))
	tells := func() (rate int, each time.Duration) {
		count := func() int { v, _ := s.Ask(ctx, pid, "count"); n, _ := v.(int); return n }
		before, begun, cpu := count(), time.Now(), cpuTime()
		for time.Since(begun) < benchTime {
			for range 1000 {
				if err := s.Send(ctx, pid, parcel{make([]byte, 64)}); err != nil {
					fmt.Println("send:", err)
				}
			}
		}
		n := count() - before
		return int(float64(n) / time.Since(begun).Seconds()), (cpuTime() - cpu) / time.Duration(n)
	}
	alone, each := tells()
	fmt.Printf("tells %d/s at %v\n", alone, each)
	flood, end := context.WithCancel(ctx)
	defer end()
	go func() { // until end
		for flood.Err() == nil {
			_ = s.Send(flood, slow, parcel{make([]byte, 64)})
		}
	}()
	for begun := time.Now(); time.Since(begun) < time.Second; { // its lane is full by then
		_, _ = s.Ask(ctx, pid, 1)
	}
	rate, _ := tells()
	fmt.Printf("beside %d\n", 100*rate/alone)
	<-ctx.Done()
	return nil
}

// cpuTime is the processor time of all processes of this program file.
func cpuTime() (sum time.Duration) {
	self, _ := os.Readlink("/proc/self/exe")
	threads, _ := filepath.Glob("/proc/[0-9]*/task/*")
	for _, dir := range threads {
		if exe, _ := os.Readlink(dir + "/exe"); exe != self {
			continue
		}
		var ns time.Duration
		if b, err := os.ReadFile(dir + "/schedstat"); err == nil {
			_, _ = fmt.Sscan(string(b), &ns)
		}
		sum += ns
	}
	return sum
}

// TestBars measures, with COPPICE_SOAK=1, what two programs on one machine pass to each other over
// TLS: asks of 64 callers and tells in a second, the processor time of all processes for each, and
// the share of the tells that is left to a lane beside one to a slow actor, in percent.
func TestBars(t *testing.T) {
	if os.Getenv("COPPICE_SOAK") != "1" {
		t.Skip("it measures; COPPICE_SOAK=1 runs it")
	}
	network := fmt.Sprintf("127.%d.%d", 1+os.Getpid()%200, 1+os.Getpid()/200%200)
	env := []string{netVar + "=" + network, certVar + "=" + certificates(t), benchVar + "=1", "COPPICE_CONTROL=off"}
	for range 3 {
		a, b := runtimetest.Start(t, append(env, hostVar+"=a")), runtimetest.Start(t, append(env, hostVar+"=b"))
		t.Logf("asks %s, tells %s, beside a slow actor %s %% of them",
			a.Await(`asks (.*)$`)[1], a.Await(`tells (.*)$`)[1], a.Await(`beside (\d+)$`)[1])
		for _, p := range []*runtimetest.Program{a, b} {
			p.Signal(syscall.SIGTERM)
			p.Wait()
		}
	}
}
