//go:build linux

package jobs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/coppice-go/coppice/fdipc"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/jobs"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// order is the input of the function of these tests: how it is to end.
type order struct {
	Do string
	N  int
}

type report struct {
	PID, Attempt int
	Text         string
}

// testOver gets a value at the end of TestGoroutines.
var testOver = make(chan struct{}, 1)

// full is memory that a call fills.
var full []byte

// obey does what it is told.
func obey(ctx context.Context, o order) (report, error) {
	r := report{PID: os.Getpid(), Attempt: jobs.Attempt(ctx), Text: o.Do}
	switch o.Do {
	case "error":
		return r, errors.New("as ordered")
	case "panic":
		panic("as ordered")
	case "exit":
		syscall.Exit(o.N) // os.Exit takes a second with -race
	case "signal":
		_ = syscall.Kill(os.Getpid(), syscall.Signal(o.N))
		select {}
	case "wait":
		<-ctx.Done()
		return r, context.Cause(ctx)
	case "hang":
		select {}
	case "memory":
		for full = make([]byte, o.N); ; {
			for i := range full {
				full[i]++
			}
		}
	case "report and wait", "report and hang", "report and wait once":
		if o.Do == "report and wait once" && r.Attempt > 1 {
			return r, nil
		}
		if err := jobs.Report(ctx, 0); err != nil {
			return r, err
		}
		<-ctx.Done()
		if o.Do == "report and hang" {
			select {}
		}
	case "wait once":
		if r.Attempt > 1 {
			break
		}
		if err := jobs.Report(ctx, 0); err != nil {
			return r, err
		}
		<-ctx.Done()
		return r, context.Cause(ctx)
	case "wait for the test":
		<-testOver
	case "note":
		return r, runNote(o.N)
	case "die once":
		if r.Attempt == 1 {
			syscall.Exit(3)
		}
	case "report":
		for i := range o.N {
			if err := jobs.Report(ctx, i); err != nil {
				return r, err
			}
		}
	case "scratch":
		r.Text = jobs.Scratch(ctx)
		return r, os.WriteFile(r.Text+"/file", []byte("x"), 0o600)
	case "scratch exit":
		if err := os.WriteFile(jobs.Scratch(ctx)+"/file", []byte("x"), 0o600); err != nil {
			return r, err
		}
		syscall.Exit(3)
	}
	return r, nil
}

// beginning returns a part of a View, if a long one is the memory of a file and not a copy.
func beginning(_ context.Context, v jobs.View) ([]byte, error) {
	if len(v) > 1<<20 {
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			return nil, err
		}
		mapping := fmt.Sprintf("%x-", uintptr(unsafe.Pointer(unsafe.SliceData(v))))
		for line := range strings.Lines(string(maps)) {
			if strings.HasPrefix(line, mapping) && strings.Contains(line, "/memfd:coppice-job") {
				mapping = ""
			}
		}
		if mapping != "" {
			return nil, errors.New("no file in memory is mapped there")
		}
	}
	v[0]++
	return v[:min(len(v), 100)], nil
}

// pool is a pool of jobs of these tests, called work.
func pool(cfg jobs.Config) coppice.ChildSpec {
	cfg.Name = "work"
	cfg.Size = max(cfg.Size, 1)
	if cfg.Intensity == (supervisor.Intensity{}) {
		cfg.Intensity.Max, cfg.Intensity.Period = 10000, time.Second
	}
	return jobs.Pool(cfg,
		jobs.Handle("work", obey),
		jobs.Handle("bytes", func(_ context.Context, b []byte) ([]byte, error) { return b, nil }),
		jobs.Handle("view", beginning),
		jobs.Handle("proto", func(_ context.Context, s *wrapperspb.StringValue) (*wrapperspb.StringValue, error) { return s, nil }),
		jobs.Handle("write", func(_ context.Context, c net.Conn) (net.Conn, error) {
			_, err := fmt.Fprint(c, "from the worker")
			return c, err
		}),
		jobs.Handle("carrier", func(_ context.Context, c tagged) (tagged, error) {
			_, err := c.file.WriteString(c.Tag)
			return c, err
		}),
		jobs.Handle("file", func(_ context.Context, f *os.File) (*os.File, error) {
			_, err := f.WriteAt([]byte("written"), 0)
			return f, err
		}),
		jobs.Handle("conn", func(_ context.Context, c net.Conn) (string, error) { return "", c.Close() }),
		jobs.Handle("closed", func(_ context.Context, name string) (*os.File, error) {
			f, err := os.Open(name)
			if err == nil {
				f.Close()
			}
			return f, err
		}),
	)
}

func tree(t *testing.T, cfg jobs.Config) *coppice.Runtime {
	return runtimetest.Tree(t, coppice.Config{ListenerIsolation: coppice.GoroutineIsolation, Children: []coppice.ChildSpec{pool(cfg)}})
}

// fails reports whether err is an E that ok accepts, as an error of the test if not.
func fails[E error](t *testing.T, err error, ok func(E) bool) {
	t.Helper()
	if e, is := errors.AsType[E](err); !is || !ok(e) {
		t.Errorf("%T %v", err, err)
	}
}

func do(t *testing.T, rt jobs.Caller, o order, opts jobs.Options) (report, error) {
	return jobs.Start[report](t.Context(), rt, "work", o, opts).Wait()
}

// notShort skips a test of processes with -short, because each end of one takes a second with
// -race.
func notShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("it ends many processes")
	}
}

// TestEnds has a call end in each way.
func TestEnds(t *testing.T) {
	rt := tree(t, jobs.Config{MaxBytes: 1 << 20})
	r, err := jobs.Call[report](t.Context(), rt, "work", order{Do: "answer"})
	if err != nil || r.PID == os.Getpid() || r.Text != "answer" {
		t.Error(r, err)
	}
	_, err = do(t, rt, order{Do: "error"}, jobs.Options{})
	fails(t, err, func(e *jobs.FuncError) bool { return e.Text == "as ordered" })
	_, err = do(t, rt, order{Do: "panic"}, jobs.Options{})
	fails(t, err, func(e *jobs.PanicError) bool { return e.Value == "as ordered" && strings.Contains(e.Stack, "obey") })
	_, err = do(t, rt, order{Do: "answer"}, jobs.Options{Key: strings.Repeat("k", 1025)})
	fails(t, err, func(e *jobs.RefusedError) bool { return strings.Contains(e.Why, "1025 bytes") })
	_, err = jobs.Call[report](t.Context(), rt, "work/"+strings.Repeat("f", 1026), order{})
	fails(t, err, func(e *jobs.RefusedError) bool { return strings.Contains(e.Why, "1026 bytes") })
	again, err := do(t, rt, order{Do: "answer"}, jobs.Options{})
	if err != nil || again.PID != r.PID {
		t.Errorf("after a panic: %v %v, before it %v", again, err, r)
	}
	_, err = do(t, rt, order{Do: "exit", N: 7}, jobs.Options{})
	fails(t, err, func(e *jobs.DiedError) bool {
		return e.Worker == "work/workers/0" && e.Exit != nil && e.Exit.Code == 7 && e.Exit.PID == r.PID && e.Deaths == 1
	})
	_, err = do(t, rt, order{Do: "signal", N: int(syscall.SIGKILL)}, jobs.Options{})
	fails(t, err, func(e *coppice.Exit) bool { return e.Signal == syscall.SIGKILL && e.Killed == "" })
	_, err = do(t, rt, order{Do: "wait"}, jobs.Options{Timeout: time.Millisecond})
	fails(t, err, func(e *jobs.DeadlineError) bool {
		return !e.Killed && errors.Is(e, context.DeadlineExceeded) && strings.Contains(e.Text, context.DeadlineExceeded.Error())
	})
	_, err = do(t, rt, order{Do: "hang"}, jobs.Options{Timeout: time.Millisecond, Grace: time.Millisecond})
	fails(t, err, func(e *jobs.DeadlineError) bool {
		return e.Killed && strings.Contains(e.Text, string(coppice.KilledCall))
	})
	_, err = do(t, rt, order{Do: "die once"}, jobs.Options{})
	fails(t, err, func(e *jobs.DiedError) bool { return e.Exit.Code == 3 })
	if r, err = do(t, rt, order{Do: "die once"}, jobs.Options{Idempotent: true}); err != nil || r.Attempt != 2 {
		t.Error(r, err)
	}
	_, err = do(t, rt, order{Do: "exit", N: 4}, jobs.Options{Idempotent: true})
	fails(t, err, func(e *jobs.DiedError) bool { return e.Deaths == 3 })
	_, err = jobs.Call[[]byte](t.Context(), rt, "work/bytes", make([]byte, 1<<20+1))
	fails(t, err, func(e *jobs.TooLargeError) bool { return e.Size == 1<<20+1 && e.Max == 1<<20 })
	_, err = jobs.Call[report](t.Context(), rt, "work/none", order{})
	fails(t, err, func(*jobs.RefusedError) bool { return true })
	_, err = jobs.Call[report](t.Context(), rt, "work", "a string")
	fails(t, err, func(*jobs.RefusedError) bool { return true })
	_, err = jobs.Call[report](t.Context(), new(coppice.Worker), "work", order{}) // a worker without a master
	fails(t, err, func(e *jobs.GoneError) bool { return e.Pool == "work" })
	_, err = jobs.Call[report](t.Context(), rt, "none", order{})
	fails(t, err, func(e *jobs.GoneError) bool { return e.Pool == "none" })
}

// TestQuarantine has a key kill two workers: its third call does not run, others do.
func TestQuarantine(t *testing.T) {
	notShort(t)
	rt := tree(t, jobs.Config{})
	for range 2 {
		_, err := do(t, rt, order{Do: "exit", N: 5}, jobs.Options{Key: "poison"})
		fails(t, err, func(e *jobs.DiedError) bool { return e.Exit.Code == 5 })
	}
	_, err := do(t, rt, order{Do: "exit", N: 5}, jobs.Options{Key: "poison"})
	fails(t, err, func(e *jobs.QuarantinedError) bool {
		return e.Key == "poison" && e.Deaths == 2 && e.Reason == "exit code 5"
	})
	if _, err := do(t, rt, order{Do: "answer"}, jobs.Options{Key: "innocent"}); err != nil {
		t.Error(err)
	}
	s, err := jobs.StatusOf(t.Context(), rt, "work")
	if err != nil || s.Refused != 1 || s.Died != 2 || s.Answered != 1 || len(s.Quarantine) != 1 || s.Quarantine[0].Key != "poison" {
		t.Errorf("%+v %v", s, err)
	}
	if found, err := jobs.Release(t.Context(), rt, "work", "poison"); !found || err != nil {
		t.Error(found, err)
	}
	if _, err := do(t, rt, order{Do: "answer"}, jobs.Options{Key: "poison"}); err != nil {
		t.Error(err)
	}
}

// TestCancel ends the callers' contexts: of a call that runs, then of one that hangs, whose worker
// is killed, and of one that waits, which does not run.
func TestCancel(t *testing.T) {
	rt := tree(t, jobs.Config{})
	began := make(chan struct{}, 1)
	opts := jobs.Options{Grace: time.Millisecond, Progress: jobs.OnProgress(func(int) { began <- struct{}{} })}
	for _, how := range []string{"report and wait", "report and hang"} {
		ctx, cancel := context.WithCancel(t.Context())
		p := jobs.Start[report](ctx, rt, "work", order{Do: how}, opts)
		<-began
		queued := jobs.Start[report](ctx, rt, "work", order{Do: "exit"}, jobs.Options{})
		cancel()
		_, err := p.Wait()
		fails(t, err, func(e *jobs.CanceledError) bool { return errors.Is(e, context.Canceled) })
		_, err = queued.Wait()
		fails(t, err, func(*jobs.CanceledError) bool { return true })
		if _, err := do(t, rt, order{Do: "answer"}, jobs.Options{}); err != nil {
			t.Error(err)
		}
	}
	if s, err := jobs.StatusOf(t.Context(), rt, "work"); err != nil || s.Canceled < 2 || s.Waiting+s.Running != 0 {
		t.Errorf("%+v %v", s, err)
	}
}

// TestQueueFull fills a queue of one place, in a pool that refuses and in one that has callers
// wait.
func TestQueueFull(t *testing.T) {
	notShort(t)
	for _, block := range []bool{false, true} {
		t.Run(fmt.Sprint("block=", block), func(t *testing.T) {
			rt := tree(t, jobs.Config{Queue: 1, Block: block})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			began := make(chan struct{}, 1)
			first := jobs.Start[report](ctx, rt, "work", order{Do: "report and wait"}, jobs.Options{Progress: jobs.OnProgress(func(int) { began <- struct{}{} })})
			<-began
			var rest []*jobs.Pending[report]
			for range 5 {
				rest = append(rest, jobs.Start[report](t.Context(), rt, "work", order{Do: "answer"}, jobs.Options{}))
			}
			for {
				s, err := jobs.StatusOf(t.Context(), rt, "work")
				if err != nil {
					t.Fatal(err)
				}
				if s.Full+s.Blocked == 4 {
					break
				}
			}
			cancel()
			_, _ = first.Wait()
			full := 0
			for _, p := range rest {
				if _, err := p.Wait(); err != nil {
					fails(t, err, func(e *jobs.FullError) bool { return e.Bound == 1 })
					full++
				}
			}
			if block && full != 0 || !block && full != 4 {
				t.Errorf("%d calls were refused", full)
			}
		})
	}
}

// TestValues sends values of each kind, short and long, and has the progress come in order.
func TestValues(t *testing.T) {
	rt := tree(t, jobs.Config{})
	for _, n := range []int{0, 100, 128 << 10, 128<<10 + 1, 3 << 20} {
		in := bytes.Repeat([]byte{'x'}, n)
		if out, err := jobs.Call[[]byte](t.Context(), rt, "work/bytes", in); err != nil || !bytes.Equal(in, out) {
			t.Errorf("%d bytes: %d came back: %v", n, len(out), err)
		}
	}
	for _, n := range []int{1, 3 << 20} {
		in := bytes.Repeat([]byte{'x'}, n)
		out, err := jobs.Call[[]byte](t.Context(), rt, "work/view", in)
		if want := append([]byte{'y'}, in[1:min(n, 100)]...); err != nil || !bytes.Equal(out, want) || in[0] != 'x' {
			t.Errorf("a view of %d bytes: %q, %v", n, out, err)
		}
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	f, err = jobs.Call[*os.File](t.Context(), rt, "work/file", f)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(io.NewSectionReader(f, 0, 100)); err != nil || string(b) != "written" {
		t.Errorf("%q %v", b, err)
	}
	var got []int
	if _, err := do(t, rt, order{Do: "report", N: 100}, jobs.Options{Progress: jobs.OnProgress(func(i int) { got = append(got, i) })}); err != nil {
		t.Error(err)
	}
	if len(got) != 100 || !slices.IsSorted(got) {
		t.Error("reports out of order:", got)
	}
}

// TestReports has a call report, short and long values: each comes, in order, before the next is
// made. One that is too long does not. A caller that does not take one is held up until the end of
// its context, and not beyond.
func TestReports(t *testing.T) {
	var made atomic.Int32
	rt := runtimetest.Tree(t, coppice.Config{ListenerIsolation: coppice.GoroutineIsolation, Children: []coppice.ChildSpec{jobs.Pool(
		jobs.Config{Pool: coppice.Pool{Name: "work", Size: 1, Isolation: coppice.GoroutineIsolation}, MaxBytes: 256 << 10},
		jobs.Handle("work", func(ctx context.Context, n int) (bool, error) {
			for i := range 50 {
				if err := jobs.Report(ctx, append(make([]byte, n), byte(i))); err != nil {
					return false, err
				}
				made.Add(1)
			}
			return true, nil
		}),
	)}})
	for _, n := range []int{0, 200 << 10} {
		made.Store(0)
		var got []int
		all, err := jobs.Start[bool](t.Context(), rt, "work", n, jobs.Options{Progress: jobs.OnProgress(func(b []byte) {
			if i := int(b[n]); i != len(got) || int(made.Load()) != i {
				t.Errorf("report %d is %d, and %d had been made", len(got), i, made.Load())
			}
			got = append(got, len(b))
		})}).Wait()
		if !all || err != nil || len(got) != 50 {
			t.Errorf("%d reports of %d bytes, %v", len(got), n, err)
		}
	}
	_, err := jobs.Call[bool](t.Context(), rt, "work", 256<<10)
	fails(t, err, func(e *jobs.FuncError) bool { return strings.Contains(e.Text, "262145 bytes, more than 262144") })
	began, over := make(chan struct{}), make(chan struct{})
	defer close(over)
	ctx, cancel := context.WithCancel(t.Context())
	p := jobs.Start[bool](ctx, rt, "work", 0, jobs.Options{Progress: jobs.OnProgress(func([]byte) { close(began); <-over })})
	<-began
	cancel()
	_, err = p.Wait()
	fails(t, err, func(*jobs.CanceledError) bool { return true })
}

// TestQueueBytes has inputs that are too long together: the second one has no room until the first
// call has ended. One alone has.
func TestQueueBytes(t *testing.T) {
	began, over := make(chan struct{}), make(chan struct{})
	rt := runtimetest.Tree(t, coppice.Config{ListenerIsolation: coppice.GoroutineIsolation, Children: []coppice.ChildSpec{jobs.Pool(
		jobs.Config{Pool: coppice.Pool{Name: "work", Size: 1, Isolation: coppice.GoroutineIsolation}, PerWorker: 2, Block: true, QueueBytes: 300 << 10},
		jobs.Handle("work", func(_ context.Context, b []byte) (int, error) {
			if b[0] == 'w' {
				close(began)
				<-over
			}
			return len(b), nil
		}),
	)}})
	p := jobs.Start[int](t.Context(), rt, "work", bytes.Repeat([]byte{'w'}, 200<<10), jobs.Options{})
	<-began
	_, err := jobs.Call[int](t.Context(), rt, "work", make([]byte, 101<<10))
	fails(t, err, func(e *jobs.FullError) bool { return strings.Contains(e.Error(), "307200") })
	close(over)
	if n, err := p.Wait(); n != 200<<10 || err != nil {
		t.Error(n, err)
	}
	if n, err := jobs.Call[int](t.Context(), rt, "work", make([]byte, 400<<10)); n != 400<<10 || err != nil {
		t.Error(n, err)
	}
}

// TestCallerThatDoesNotRead stops a process with many calls, has them all answered, which is more
// than its channel takes, and continues it: it gets each answer.
func TestCallerThatDoesNotRead(t *testing.T) {
	notShort(t)
	const calls = 1000
	var pid atomic.Int32
	gate := make(chan struct{})
	rt := runtimetest.Tree(t, coppice.Config{Children: []coppice.ChildSpec{
		jobs.Pool(jobs.Config{Pool: coppice.Pool{Name: "work", Size: 1, Isolation: coppice.GoroutineIsolation}, PerWorker: calls},
			jobs.Handle("work", func(_ context.Context, from int) (string, error) {
				pid.Store(int32(from))
				<-gate
				return strings.Repeat("x", 15_000), nil
			})),
		coppice.Pool{Name: "caller", Size: 1, Restart: supervisor.Temporary, Worker: func(ctx context.Context, w *coppice.Worker) error {
			var all []*jobs.Pending[string]
			for range calls {
				all = append(all, jobs.Start[string](ctx, w, "work", os.Getpid(), jobs.Options{}))
			}
			if err := w.Ready(); err != nil {
				return err
			}
			failed := 0
			for _, p := range all {
				if s, err := p.Wait(); err != nil || len(s) != 15_000 {
					failed++
				}
			}
			if failed == 0 {
				syscall.Exit(60)
			}
			return fmt.Errorf("%d calls failed", failed)
		}},
	}})
	counts := func(what string, holds func(jobs.Status) bool) {
		t.Helper()
		runtimetest.Eventually(t, what, func() bool {
			s, err := jobs.StatusOf(t.Context(), rt, "work")
			return err == nil && holds(s)
		})
	}
	counts("all calls to run", func(s jobs.Status) bool { return s.Running == calls })
	if err := syscall.Kill(int(pid.Load()), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "the caller to stop", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid.Load()))
		return err == nil && bytes.Contains(b, []byte(") T "))
	})
	close(gate)
	counts("all to be answered", func(s jobs.Status) bool { return s.Answered == calls })
	if err := syscall.Kill(int(pid.Load()), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for ev := range rt.Events(0).All(t.Context()) {
		if ev.Kind == coppice.ChildExited && ev.Path == "caller/0" {
			if exit, ok := errors.AsType[*coppice.Exit](ev.Reason.Err()); !ok || exit.Code != 60 {
				t.Error(ev)
			}
			return
		}
	}
}

// tagged is a value with a file.
type tagged struct {
	Tag  string
	file *os.File
}

func (c *tagged) TakeHandles() []any { return []any{c.file} }

func (c *tagged) SetHandles(handles []*fdipc.Handle) (err error) {
	if len(handles) != 1 {
		return errors.New("not one file")
	}
	c.file, err = handles[0].File()
	return err
}

// TestValuesOfEachType sends a message of protobuf, a connection and a value with a file there and
// back.
func TestValuesOfEachType(t *testing.T) {
	rt := tree(t, jobs.Config{})
	for _, n := range []int{1, 1 << 20} {
		in := wrapperspb.String(strings.Repeat("x", n))
		if out, err := jobs.Call[*wrapperspb.StringValue](t.Context(), rt, "work/proto", in); err != nil || out.Value != in.Value {
			t.Errorf("protobuf of %d bytes: %v", n, err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err == nil {
		server, err = jobs.Call[net.Conn](t.Context(), rt, "work/write", server)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprint(server, " and the caller")
	_ = server.Close()
	if b, readErr := io.ReadAll(client); err != nil || readErr != nil || string(b) != "from the worker and the caller" {
		t.Errorf("%q %v %v", b, err, readErr)
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	out, err := jobs.Call[tagged](t.Context(), rt, "work/carrier", tagged{"its tag", f})
	if err != nil {
		t.Fatal(err)
	}
	defer out.file.Close()
	if b, err := io.ReadAll(io.NewSectionReader(out.file, 0, 100)); err != nil || string(b) != "its tag" || out.Tag != "its tag" {
		t.Errorf("%q %+v %v", b, out, err)
	}
}

// TestPerWorker has a worker killed for one of three calls in it: the others end with an
// error, or run again.
func TestPerWorker(t *testing.T) {
	notShort(t)
	rt := tree(t, jobs.Config{PerWorker: 3})
	began := make(chan struct{}, 2)
	opts := jobs.Options{Progress: jobs.OnProgress(func(int) { began <- struct{}{} })}
	told := jobs.Start[report](t.Context(), rt, "work", order{Do: "report and wait"}, opts)
	opts.Idempotent = true
	again := jobs.Start[report](t.Context(), rt, "work", order{Do: "report and wait once"}, opts)
	<-began
	<-began
	_, err := do(t, rt, order{Do: "hang"}, jobs.Options{Timeout: time.Millisecond, Grace: time.Millisecond})
	fails(t, err, func(e *jobs.DeadlineError) bool { return e.Killed })
	_, err = told.Wait()
	fails(t, err, func(e *jobs.DiedError) bool {
		return e.Exit != nil && e.Exit.Killed == coppice.KilledCall && e.Deaths == 1
	})
	if r, err := again.Wait(); err != nil || r.Attempt != 2 {
		t.Error(r, err)
	}
}

// TestScratch looks at the directories of calls: they are gone afterwards.
func TestScratch(t *testing.T) {
	notShort(t)
	rt := tree(t, jobs.Config{Scratch: true})
	r, err := do(t, rt, order{Do: "scratch"}, jobs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.Text); r.Text == "" || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%q: %v", r.Text, err)
	}
	base := filepath.Dir(r.Text)
	for id := range 20 { // another user of the machine may, and foretell the IDs of workers
		if err := os.WriteFile(filepath.Join(base, strconv.Itoa(id)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err = do(t, rt, order{Do: "scratch exit"}, jobs.Options{})
	fails(t, err, func(*jobs.DiedError) bool { return true })
	runtimetest.Eventually(t, "the end of the directory of a dead worker", func() bool {
		dirs, err := filepath.Glob(filepath.Join(base, "*-*"))
		return err == nil && len(dirs) == 0
	})
	if _, err := do(t, rt, order{Do: "scratch"}, jobs.Options{}); err != nil {
		t.Error(err)
	}
}

// TestFresh has each call in a process of its own, which costs the pool no restart: its budget is
// none.
func TestFresh(t *testing.T) {
	notShort(t)
	rt := tree(t, jobs.Config{Fresh: true, Pool: coppice.Pool{Spares: 1, Intensity: supervisor.Intensity{Period: time.Hour}}})
	seen := map[int]bool{}
	for i := range 20 {
		r, err := do(t, rt, order{Do: "answer"}, jobs.Options{})
		if err != nil || seen[r.PID] {
			t.Errorf("call %d: process %d, %v", i, r.PID, err)
		}
		seen[r.PID] = true
	}
}

// TestFreshCannotStart has the workers after the first fail to start: that is what the pool's
// budget is for, and the pool gives up.
func TestFreshCannotStart(t *testing.T) {
	notShort(t)
	first := func(_ context.Context, w *coppice.Worker) error {
		if w.ID() != 2 { // 1 is the listener process
			return errors.New("as ordered")
		}
		return nil
	}
	rt := tree(t, jobs.Config{Fresh: true, Pool: coppice.Pool{Prepare: first, Intensity: supervisor.Intensity{Period: time.Hour}}})
	if _, err := do(t, rt, order{Do: "answer"}, jobs.Options{}); err != nil {
		t.Fatal(err)
	}
	_, err := do(t, rt, order{Do: "answer"}, jobs.Options{})
	fails(t, err, func(e *jobs.GoneError) bool { return e.Pool == "work" })
	<-rt.Done()
}

// TestCallFromWorker calls from a worker, whose death then ends what it has called.
func TestCallFromWorker(t *testing.T) {
	notShort(t)
	calls := func(ctx context.Context, w *coppice.Worker) error {
		if err := w.Ready(); err != nil {
			return err
		}
		_, err := jobs.Call[report](ctx, w, "work", order{Do: "exit", N: 6})
		if died, ok := errors.AsType[*jobs.DiedError](err); ok && died.Exit != nil && died.Exit.Code == 6 {
			os.Exit(60)
		}
		return err
	}
	rt := runtimetest.Tree(t, coppice.Config{Logger: slog.New(slog.DiscardHandler), Children: []coppice.ChildSpec{
		pool(jobs.Config{}), coppice.Pool{Name: "caller", Size: 1, Worker: calls, Restart: supervisor.Temporary},
	}})
	for ev := range rt.Events(0).All(t.Context()) {
		if ev.Kind == coppice.ChildExited && ev.Path == "caller/0" {
			if exit, ok := errors.AsType[*coppice.Exit](ev.Reason.Err()); !ok || exit.Code != 60 {
				t.Error(ev)
			}
			return
		}
	}
}

// TestGoroutines has the workers be goroutines: a call that hangs is left behind.
func TestGoroutines(t *testing.T) {
	rt := tree(t, jobs.Config{Pool: coppice.Pool{Isolation: coppice.GoroutineIsolation}})
	if r, err := do(t, rt, order{Do: "answer"}, jobs.Options{}); err != nil || r.PID != os.Getpid() {
		t.Error(r, err)
	}
	_, err := do(t, rt, order{Do: "panic"}, jobs.Options{})
	fails(t, err, func(*jobs.PanicError) bool { return true })
	_, err = do(t, rt, order{Do: "wait for the test"}, jobs.Options{Timeout: time.Millisecond, Grace: time.Millisecond})
	testOver <- struct{}{}
	fails(t, err, func(e *jobs.DeadlineError) bool { return e.Killed })
	if _, err := do(t, rt, order{Do: "answer"}, jobs.Options{}); err != nil {
		t.Error(err)
	}
}

// TestStorm calls many times, with poison of four keys among the calls: each poison call ends with
// its reason or the quarantine, after two deaths of each key, each innocent call is answered, and
// the master is left as it was. COPPICE_STORM has the number of calls, of which it makes one in
// 1,000 poison, in place of one in 20.
func TestStorm(t *testing.T) {
	notShort(t)
	n, every := 2000, 20
	if v, err := strconv.Atoi(os.Getenv("COPPICE_STORM")); err == nil {
		n, every = v, 1000
	}
	const memory = 128 << 20
	rt := tree(t, jobs.Config{Block: true, Pool: coppice.Pool{
		Size: 4, Spares: 2, Recycle: coppice.Recycle{HardMemory: memory, Every: 20 * time.Millisecond},
	}})
	poison := []struct {
		order
		reason func(error) bool
	}{
		{order{"signal", int(syscall.SIGSEGV)}, died(func(e *coppice.Exit) bool { return strings.Contains(e.Error(), "SIGSEGV") })},
		{order{"exit", 9}, died(func(e *coppice.Exit) bool { return e.Code == 9 })},
		{order{"memory", 2 * memory}, died(func(e *coppice.Exit) bool { return e.Killed == coppice.KilledMemory })},
		{order{"hang", 0}, func(err error) bool {
			e, ok := errors.AsType[*jobs.DeadlineError](err)
			return ok && e.Killed
		}},
	}
	call := func(i int) error {
		o, opts := order{"answer", i}, jobs.Options{Key: "innocent " + strconv.Itoa(i), Timeout: 20 * time.Second}
		if i%every != 7 {
			_, err := do(t, rt, o, opts)
			return err
		}
		k := i / every % len(poison)
		opts = jobs.Options{Key: "poison " + strconv.Itoa(k)}
		if k == 3 {
			opts.Timeout, opts.Grace = time.Millisecond, time.Millisecond
		}
		_, err := do(t, rt, poison[k].order, opts)
		if q, ok := errors.AsType[*jobs.QuarantinedError](err); ok && q.Deaths >= 2 && q.Key == opts.Key || poison[k].reason(err) {
			return nil
		}
		return err
	}
	storm := func(from, to int) {
		next := atomic.Int64{}
		next.Store(int64(from))
		var wait sync.WaitGroup
		for range 64 {
			wait.Go(func() {
				for i := int(next.Add(1)) - 1; i < to; i = int(next.Add(1)) - 1 {
					if err := call(i); err != nil {
						t.Errorf("call %d: %T %v", i, err, err)
					}
				}
			})
		}
		wait.Wait()
	}
	storm(0, n/10) // what is made once is made
	before := atRest(t)
	storm(n/10, n)
	now := atRest(t)
	s, err := jobs.StatusOf(t.Context(), rt, "work")
	if err != nil || s.Waiting+s.Running+s.Rerun != 0 || s.Taken != uint64(n) || s.Answered+s.Died+s.Killed+s.Refused != uint64(n) {
		t.Errorf("%+v %v", s, err)
	}
	if limit := uint64(len(poison) * (2 + 4 + 3)); s.Died+s.Killed > limit { // what runs when the second comes does so too; and probes
		t.Errorf("%d deaths", s.Died+s.Killed)
	}
	if now.fds > before.fds || now.goroutines > before.goroutines || now.kids != before.kids || now.heap > before.heap+6<<20 {
		t.Errorf("%+v; before it was %+v", now, before)
	}
	t.Logf("%d calls: %d answered, %d died, %d killed, %d refused, %d ran again; before %+v, after %+v", n, s.Answered, s.Died, s.Killed, s.Refused, s.Reruns, before, now)
}

// died reports whether a call ended with an exit.
func died(how func(*coppice.Exit) bool) func(error) bool {
	return func(err error) bool {
		e, ok := errors.AsType[*jobs.DiedError](err)
		return ok && e.Exit != nil && how(e.Exit)
	}
}

// rest is what a master has when nothing is under way.
type rest struct{ fds, goroutines, kids, heap, resident int }

// atRest waits until nothing changes any more, and counts.
func atRest(t *testing.T) (now rest) {
	t.Helper()
	same := 0
	runtimetest.Eventually(t, "nothing changes any more", func() bool {
		last := now
		now = rest{fds: len(runtimetest.Descriptors(t, os.Getpid())), goroutines: runtime.NumGoroutine(), kids: len(runtimetest.Children(t, os.Getpid()))}
		if same++; now != last {
			same = 0
		}
		return same == 50
	})
	debug.FreeOSMemory()
	debug.FreeOSMemory() // what a sync.Pool has outlives one collection
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	now.heap, now.resident = int(mem.HeapAlloc), int(runtimetest.Resident(t, os.Getpid()))
	return now
}

// TestMap has results in the order of the inputs, or as they come, and ends early: it leaves the
// loop, or has the context end, of which the last result then tells.
func TestMap(t *testing.T) {
	rt := tree(t, jobs.Config{Pool: coppice.Pool{Size: 2}})
	in := func(yield func(order) bool) {
		for i := 0; yield(order{Do: "answer", N: i}); i++ {
		}
	}
	for _, unordered := range []bool{false, true} {
		seen := map[int]bool{}
		for r := range jobs.Map[report](t.Context(), rt, "work", in, jobs.MapOptions{Concurrency: 4, Unordered: unordered}) {
			if r.Err != nil || !unordered && r.Index != len(seen) || seen[r.Index] {
				t.Errorf("result %d: %+v", len(seen), r)
			}
			if seen[r.Index] = true; len(seen) == 50 {
				break
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var last jobs.Result[report]
		n, ends := 0, map[string]int{}
		for last = range jobs.Map[report](ctx, rt, "work", in, jobs.MapOptions{Concurrency: 2, Unordered: unordered}) {
			if n++; n == 3 {
				cancel()
			}
			ends[fmt.Sprintf("%T", last.Err)]++
		}
		if ends["*jobs.CanceledError"] == 0 {
			t.Error("results that say nothing of the end of the context:", ends)
		}
		cancel()
		if !unordered { // else what was begun may end after what was not
			fails(t, last.Err, func(*jobs.CanceledError) bool { return last.Index == n-1 })
		}
	}
}

// TestTrace has one trace for a call: that it waited and ran are spans under the caller's.
func TestTrace(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)))
	defer otel.SetTracerProvider(before)
	rt := tree(t, jobs.Config{Pool: coppice.Pool{Isolation: coppice.GoroutineIsolation}})
	_, err := do(t, rt, order{Do: "error"}, jobs.Options{})
	fails(t, err, func(*jobs.FuncError) bool { return true })
	byName := map[string]sdktrace.ReadOnlySpan{}
	for _, s := range spans.Ended() {
		byName[s.Name()] = s
	}
	root := byName[tracing.SpanCall]
	for _, name := range []string{tracing.SpanQueued, tracing.SpanRun} {
		if s := byName[name]; root == nil || s == nil || s.Parent().SpanID() != root.SpanContext().SpanID() {
			t.Errorf("%s is not under %s: %v", name, tracing.SpanCall, byName)
		}
	}
	if s := byName[tracing.SpanRun]; s != nil && (s.Status().Code != codes.Error || !slices.Contains(s.Attributes(), tracing.KeyErrorType.String("error")) || !slices.Contains(s.Attributes(), tracing.KeyRun.Int(1))) {
		t.Error("a run with an error has", s.Status(), s.Attributes())
	}
}

// logLines is a writer for a log, that keeps what there is room for.
type logLines chan string

func (l logLines) Write(b []byte) (int, error) {
	select {
	case l <- string(b):
	default:
	}
	return len(b), nil
}

// TestQueueEnds ends the queue with a call in it, and starts it again: the worker stays, and serves
// the new queue, which says what it has forgotten. The clock is set back meanwhile.
func TestQueueEnds(t *testing.T) {
	notShort(t)
	var life atomic.Int64
	life.Store(10)
	defer jobs.NewLife(func() int64 { return time.Now().UnixNano() })
	jobs.NewLife(func() int64 { return life.Add(-1) })
	log := make(logLines, 256)
	rt := runtimetest.Tree(t, coppice.Config{
		Logger: slog.New(slog.NewTextHandler(log, nil)), ListenerIsolation: coppice.GoroutineIsolation, Children: []coppice.ChildSpec{pool(jobs.Config{})},
	})
	before, err := do(t, rt, order{Do: "answer"}, jobs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	began := make(chan struct{}, 1)
	p := jobs.Start[report](t.Context(), rt, "work", order{Do: "report and wait"}, jobs.Options{Progress: jobs.OnProgress(func(int) { began <- struct{}{} })})
	<-began
	if err := rt.TerminateChild(t.Context(), "work/queue"); err != nil {
		t.Fatal(err)
	}
	_, err = p.Wait()
	fails(t, err, func(e *jobs.GoneError) bool { return e.Pool == "work" })
	runtimetest.Eventually(t, "the queue's word in the log", func() bool {
		select {
		case line := <-log:
			return strings.Contains(line, "forgets its calls and quarantined keys\" pool=work calls=1 keys=0")
		default:
			return false
		}
	})
	if err := rt.RestartChild(t.Context(), "work/queue"); err != nil {
		t.Fatal(err)
	}
	if r, err := do(t, rt, order{Do: "answer"}, jobs.Options{}); err != nil || r.PID != before.PID {
		t.Errorf("%v %v; before it was %v", r, err, before)
	}
}
