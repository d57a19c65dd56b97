//go:build linux

package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/jobs"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// TestMain has this program be the one of TestUpgrade too, since one that runs tests is not
// upgraded.
func TestMain(m *testing.M) { runtimetest.Main(m, func() { coppice.Main(upgradedTree()) }) }

// pipe opens a named pipe that the processes of TestUpgrade share.
func pipe(name string) *os.File {
	f, err := os.OpenFile(filepath.Join(os.Getenv(dirVar), name), os.O_RDWR, 0)
	if err != nil {
		panic(err)
	}
	return f
}

// upgradedTree has one worker, for two calls at once, and calls it from a worker and a Func.
func upgradedTree() coppice.Config {
	work := func(ctx context.Context, what string) (int, error) {
		fmt.Println("run:", what)
		switch {
		case what == "exit":
			syscall.Exit(3)
		case strings.HasPrefix(what, "hold"):
			<-ctx.Done()
			fmt.Printf("end of %s: %v\n", what, context.Cause(ctx))
		}
		return os.Getpid(), context.Cause(ctx)
	}
	return coppice.Config{Children: []coppice.ChildSpec{
		jobs.Pool(jobs.Config{
			PerWorker: 2, Scratch: true, Poison: jobs.Poison{Deaths: 1},
			Pool: coppice.Pool{Name: "work", Size: 1, Prepare: func(_ context.Context, w *coppice.Worker) error {
				if w.Generation() == 1 {
					return nil
				}
				_, err := pipe("reload").Read(make([]byte, 1)) // the workers of before serve meanwhile
				return err
			}},
		}, jobs.Handle("work", work)),
		coppice.Pool{Name: "caller", Size: 1, Worker: callOverUpgrade},
		coppice.Func{Name: "func", Run: callOfMaster},
	}}
}

// printCall calls, and prints how that ended.
func printCall(ctx context.Context, c jobs.Caller, what string, o jobs.Options) {
	pid, err := jobs.Start[int](ctx, c, "work", what, o).Wait()
	how := fmt.Sprintf("%T", err)
	switch {
	case err == nil:
		how = fmt.Sprint("by ", pid)
	case errors.Is(err, actors.ErrReplaced):
		how += ", replaced"
	}
	fmt.Printf("ended: %s: %s\n", what, how)
}

// until waits for a state of the queue of the program.
func until(ctx context.Context, c jobs.Caller, is func(jobs.Status) bool) {
	for ctx.Err() == nil {
		if s, err := jobs.StatusOf(ctx, c, "work"); err == nil && is(s) {
			return
		}
	}
}

// callOverUpgrade has a key quarantined, then a call run and two wait, and calls once more when
// they have ended.
func callOverUpgrade(ctx context.Context, w *coppice.Worker) error {
	if err := w.Ready(); err != nil {
		return err
	}
	if w.Generation() == 1 {
		printCall(ctx, w, "exit", jobs.Options{Key: "poison"})
		printCall(ctx, w, "quarantined", jobs.Options{Key: "poison"})
		var calls sync.WaitGroup
		call := func(what string, o jobs.Options) { calls.Go(func() { printCall(w.WorkContext(), w, what, o) }) }
		until(ctx, w, func(s jobs.Status) bool { return len(s.Runs) == 1 && s.Runs[0].Key == "hold" })
		call("hold 1 of the worker", jobs.Options{Idempotent: true})
		until(ctx, w, func(s jobs.Status) bool { return s.Running == 2 })
		call("hold 2 of the worker", jobs.Options{Idempotent: true})
		until(ctx, w, func(s jobs.Status) bool { return s.Waiting == 1 })
		call("hold 3 of the worker", jobs.Options{})
		calls.Wait()
	}
	printCall(w.WorkContext(), w, fmt.Sprint("the worker's next, of generation ", w.Generation()), jobs.Options{})
	<-ctx.Done()
	return nil
}

// callOfMaster has a call run and one wait until it is stopped.
func callOfMaster(ctx context.Context) error {
	rt := coppice.Running()
	if _, _, upgraded := coppice.TakeOver(ctx); upgraded {
		printCall(ctx, rt, "the master's next", jobs.Options{Key: "poison"})
		<-ctx.Done()
		return nil
	}
	until(ctx, rt, func(s jobs.Status) bool { return s.Refused == 1 })
	// The first call is cancelled when its function has returned, and its answer is on the way. The
	// first one after the upgrade has its ID, and must not end for that.
	if err := os.WriteFile(filepath.Join(os.Getenv(dirVar), "answering"), nil, 0o600); err != nil {
		return err
	}
	first, cancel := context.WithCancel(ctx)
	defer cancel()
	late := jobs.Start[int](first, rt, "work", "late", jobs.Options{})
	if _, err := pipe("reached").Read(make([]byte, 1)); err != nil {
		return err
	}
	cancel()
	_, _ = late.Wait()
	until(ctx, rt, func(s jobs.Status) bool { return s.Canceled == 1 })
	printCall(ctx, rt, "after the cancellation", jobs.Options{})
	if _, err := pipe("go on").Write([]byte{1}); err != nil {
		return err
	}
	until(ctx, rt, func(s jobs.Status) bool { return s.Running == 0 })
	var calls sync.WaitGroup
	calls.Go(func() { printCall(ctx, rt, "hold 1 of the master", jobs.Options{Idempotent: true, Key: "hold"}) })
	until(ctx, rt, func(s jobs.Status) bool { return s.Waiting == 2 })
	calls.Go(func() { printCall(ctx, rt, "hold 2 of the master", jobs.Options{Idempotent: true}) })
	until(ctx, rt, func(s jobs.Status) bool { return s.Waiting == 3 })
	fmt.Println("all run or wait")
	calls.Wait()
	return coppice.HandOver(ctx, 1, nil)
}

// TestUpgrade replaces the whole program with calls that run and wait, of a worker and of a Func:
// each ends once, with its error, and none runs again. The same worker takes the next calls, also
// one with a key that was quarantined, until the reload at the end of the upgrade replaces it.
func TestUpgrade(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(dirVar, dir)
	t.Setenv("TMPDIR", dir)
	for _, name := range []string{"reached", "go on", "reload"} {
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
		defer pipe(name).Close()
	}
	p := runtimetest.Start(t, []string{"COPPICE_CONTROL=off"})
	p.Await("all run or wait")
	p.Signal(syscall.SIGUSR2)
	p.Await("ended: the worker's next, of generation 1")
	p.Await("ended: the master's next")
	scratch := func() int {
		dirs, _ := filepath.Glob(filepath.Join(dir, "coppice-jobs-*"))
		return len(dirs)
	}
	if n := scratch(); n != 1 {
		t.Errorf("%d directories for calls are left", n)
	}
	if _, err := pipe("reload").Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	p.Await(`ended: the worker's next, of generation 2: by \d`)
	p.Await("INFO upgraded")
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("it exited with %d", code)
	}
	if n := scratch(); n != 0 {
		t.Errorf("%d directories for calls are left at the end", n)
	}
	by := p.Await("ended: after the cancellation: (by .*)")[1]
	var got []string
	for _, l := range p.Lines() {
		if _, text, child := strings.Cut(l, "| "); child {
			l = text
		}
		if what, _, _ := strings.Cut(l, " "); (what == "run:" || what == "ended:") && !strings.Contains(l, "generation 2") {
			got = append(got, strings.Replace(l, by, "by it", 1))
		}
	}
	if i := slices.Index(got, "run: hold 2 of the worker"); i >= 0 { // if it had the place of the master's in time
		got = slices.Delete(got, i, i+1)
	}
	want := []string{
		"ended: after the cancellation: by it",
		"ended: exit: *jobs.DiedError",
		"ended: hold 1 of the master: *jobs.CanceledError",
		"ended: hold 1 of the worker: *jobs.GoneError, replaced",
		"ended: hold 2 of the master: *jobs.CanceledError",
		"ended: hold 2 of the worker: *jobs.GoneError, replaced",
		"ended: hold 3 of the worker: *jobs.GoneError, replaced",
		"ended: quarantined: *jobs.QuarantinedError",
		"ended: the master's next: by it",
		"ended: the worker's next, of generation 1: by it",
		"run: after the cancellation",
		"run: exit",
		"run: hold 1 of the master",
		"run: hold 1 of the worker",
		"run: late",
		"run: the master's next",
		"run: the worker's next, of generation 1",
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
