//go:build linux

package jobs_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/jobs"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// TestNothingIsCut has workers leave under load, for a reload, a change of size or since they have
// had their share of calls: each call is answered, also by descriptor.
func TestNothingIsCut(t *testing.T) {
	notShort(t)
	long := strings.Repeat("x", 20_000) // in a file
	for name, c := range map[string]struct {
		calls int // of each of 8 callers
		jobs.Config
	}{
		"recycled":           {30, jobs.Config{Pool: coppice.Pool{Size: 2, Spares: 2, Recycle: coppice.Recycle{Requests: 5}}}},
		"fresh":              {5, jobs.Config{Fresh: true, Pool: coppice.Pool{Size: 2, Spares: 2}}},
		"reloaded, rescaled": {30, jobs.Config{Pool: coppice.Pool{Size: 2}}},
	} {
		t.Run(name, func(t *testing.T) {
			rt := tree(t, c.Config)
			var calls sync.WaitGroup
			for range 8 {
				calls.Go(func() {
					for range c.calls {
						out, err := jobs.Call[[]byte](t.Context(), rt, "work/bytes", []byte(long))
						if err != nil || string(out) != long {
							t.Errorf("%d bytes, %T %v", len(out), err, err)
							return
						}
					}
				})
			}
			var over atomic.Bool
			go func() { calls.Wait(); over.Store(true) }()
			for i := 0; name == "reloaded, rescaled" && (i < 4 || !over.Load()); i++ {
				if err := errors.Join(rt.Reload(t.Context()), rt.Scale(t.Context(), "work/workers", 1+i%2*2)); err != nil {
					t.Error(err)
					break
				}
			}
			calls.Wait()
		})
	}
}

// TestCutByDrain has a reload end a call that outlives its worker's drain: its error is not the
// function's. With Idempotent it runs again.
func TestCutByDrain(t *testing.T) {
	notShort(t)
	rt := tree(t, jobs.Config{Pool: coppice.Pool{Shutdown: 1}}) // the drain is over at once
	for _, idempotent := range []bool{false, true} {
		began := make(chan struct{}, 1)
		p := jobs.Start[report](t.Context(), rt, "work", order{Do: "wait once"}, jobs.Options{
			Key: "k", Idempotent: idempotent, Progress: jobs.OnProgress(func(int) { began <- struct{}{} }),
		})
		<-began
		if err := rt.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		switch r, err := p.Wait(); {
		case idempotent && (err != nil || r.Attempt != 2):
			t.Errorf("attempt %d, %v", r.Attempt, err)
		case !idempotent:
			fails(t, err, func(*jobs.DiedError) bool { return true })
		}
	}
}

// TestHandlesThatCannotGo gives and returns handles that cannot cross: the caller hears of it, and
// the pool serves on.
func TestHandlesThatCannotGo(t *testing.T) {
	rt := tree(t, jobs.Config{})
	for range 2 {
		a, b := net.Pipe()
		defer b.Close()
		_, err := jobs.Call[string](t.Context(), rt, "work/conn", net.Conn(tls.Client(a, nil)))
		fails(t, err, func(*jobs.RefusedError) bool { return true })
	}
	_, err := jobs.Call[*os.File](t.Context(), rt, "work/closed", "/dev/null")
	fails(t, err, func(e *jobs.RefusedError) bool { return strings.Contains(e.Why, "answer") })
	if _, err := do(t, rt, order{Do: "answer"}, jobs.Options{}); err != nil {
		t.Error(err)
	}
}

// TestPlaces refuses calls that have a place in the queue: they give it back.
func TestPlaces(t *testing.T) {
	rt := tree(t, jobs.Config{Queue: 2})
	for range 3 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		_, err = jobs.Start[*os.File](t.Context(), rt, "work/file", f, jobs.Options{Idempotent: true}).Wait()
		fails(t, err, func(e *jobs.RefusedError) bool { return strings.Contains(e.Why, "idempotent") })
	}
	if _, err := do(t, rt, order{Do: "answer"}, jobs.Options{}); err != nil {
		t.Error(err)
	}
}

// TestFreshQueueEnds ends the queue of fresh workers with a call in one: it has no other, and those
// that follow do not suffer.
func TestFreshQueueEnds(t *testing.T) {
	notShort(t)
	rt := tree(t, jobs.Config{Fresh: true, Pool: coppice.Pool{Spares: 1}})
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		began := make(chan int, 1)
		p := jobs.Start[report](ctx, rt, "work", order{Do: "report and wait"}, jobs.Options{Progress: jobs.OnProgress(func(pid int) { began <- pid })})
		<-began
		if err := errors.Join(rt.TerminateChild(ctx, "work/queue"), rt.RestartChild(ctx, "work/queue")); err != nil {
			t.Fatal(err)
		}
		_, err := p.Wait()
		fails(t, err, func(*jobs.GoneError) bool { return true })
		if _, err := do(t, rt, order{Do: "answer"}, jobs.Options{}); err != nil {
			t.Error(err)
		}
		cancel()
	}
}

// loneHost is a cluster of one host.
type loneHost struct{}

func (loneHost) HostName() string { return "a" }
func (loneHost) NewBoot() string  { return "boota" }
func (loneHost) Validate() error  { return nil }

func (loneHost) Member() func(context.Context) error { return nil }

func (loneHost) Begin(context.Context, *coppice.Runtime) error { return nil }

func (loneHost) Operate(context.Context, *coppice.Runtime, string, url.Values, func(string)) (any, error) {
	return nil, coppice.ErrUnsupported
}

func (loneHost) RunGateway(ctx context.Context, g actors.GatewayProcess) error {
	g.System().Carry(noLanes{})
	if err := g.Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

type noLanes struct{}

func (noLanes) Begin()                                                   {}
func (noLanes) OpenLane(uint64, string, uint64, string, actors.HalfLane) {}
func (noLanes) LaneAccepted(uint64, uint64, uint64, actors.HalfLane)     {}
func (noLanes) LaneDeclined(uint64, []byte)                              {}
func (noLanes) ProcessEnded(string, []byte)                              {}

// TestOnAHost calls in a tree that has joined a cluster, where addresses have a boot.
func TestOnAHost(t *testing.T) {
	rt := runtimetest.Tree(t, coppice.Config{
		Hosts: loneHost{}, ListenerIsolation: coppice.GoroutineIsolation, Children: []coppice.ChildSpec{pool(jobs.Config{})},
	})
	if _, err := do(t, rt, order{Do: "answer"}, jobs.Options{}); err != nil {
		t.Error(err)
	}
	_, err := do(t, rt, order{Do: "hang"}, jobs.Options{Timeout: 1, Grace: coppice.None})
	fails(t, err, func(e *jobs.DeadlineError) bool { return e.Killed })
}
