package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/jobs"
)

// thumbs starts a tree with a pool of jobs. In a program the pool's workers are processes, and the
// callers workers of another pool.
func thumbs(functions ...jobs.Function) (*coppice.Runtime, func()) {
	rt, err := coppice.Start(context.Background(), coppice.Config{
		ListenerIsolation: coppice.GoroutineIsolation,
		Logger:            slog.New(slog.DiscardHandler),
		Children: []coppice.ChildSpec{jobs.Pool(
			jobs.Config{Pool: coppice.Pool{Name: "thumbs", Size: 2, Isolation: coppice.GoroutineIsolation}}, functions...)},
	})
	if err != nil {
		panic(err)
	}
	return rt, func() { _ = rt.Shutdown(context.Background()) }
}

// A call ends with the function's answer, or with an error whose type says what has happened.
func ExampleCall() {
	rt, end := thumbs(jobs.Handle("shrink", func(_ context.Context, pixels int) (int, error) {
		if pixels == 0 {
			panic("an image without pixels")
		}
		return pixels / 4, nil
	}))
	defer end()
	ctx := context.Background()
	fmt.Println(jobs.Call[int](ctx, rt, "thumbs/shrink", 100))
	_, err := jobs.Call[int](ctx, rt, "thumbs/shrink", 0)
	if p, ok := errors.AsType[*jobs.PanicError](err); ok {
		fmt.Println("panic:", p.Value)
	}
	// Output:
	// 25 <nil>
	// panic: an image without pixels
}

// Start does not wait, and has options: a deadline that holds, a key for the quarantine.
func ExampleStart() {
	rt, end := thumbs(jobs.Handle("shrink", func(ctx context.Context, name string) (string, error) {
		<-ctx.Done() // an endless loop would be killed after Grace
		return "", ctx.Err()
	}))
	defer end()
	call := jobs.Start[string](context.Background(), rt, "thumbs/shrink", "a.png", jobs.Options{Timeout: time.Millisecond, Key: "a.png"})
	_, err := call.Wait()
	_, late := errors.AsType[*jobs.DeadlineError](err)
	fmt.Println(late)
	// Output: true
}

// Map calls for each value, a few at a time, and yields the answers in order.
func ExampleMap() {
	rt, end := thumbs(jobs.Handle("square", func(_ context.Context, n int) (int, error) { return n * n, nil }))
	defer end()
	for r := range jobs.Map[int](context.Background(), rt, "thumbs/square", slices.Values([]int{2, 3, 4}), jobs.MapOptions{Concurrency: 2}) {
		fmt.Println(r.Index, r.Out, r.Err)
	}
	// Output:
	// 0 4 <nil>
	// 1 9 <nil>
	// 2 16 <nil>
}

// percent is what a long call reports.
type percent struct{ Done int }

// What a function reports comes to its caller, in order, before the answer.
func ExampleReport() {
	rt, end := thumbs(jobs.Handle("encode", func(ctx context.Context, film string) (string, error) {
		for _, n := range []int{50, 100} {
			if err := jobs.Report(ctx, percent{n}); err != nil {
				return "", err
			}
		}
		return film + ".webm", nil
	}))
	defer end()
	fmt.Println(jobs.Start[string](context.Background(), rt, "thumbs/encode", "film", jobs.Options{
		Progress: jobs.OnProgress(func(p percent) { fmt.Println(p.Done) }),
	}).Wait())
	// Output:
	// 50
	// 100
	// film.webm <nil>
}
