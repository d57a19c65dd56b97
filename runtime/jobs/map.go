package jobs

import (
	"context"
	"iter"
	"sync"
)

// A Result is what came of one input of [Map].
type Result[Out any] struct {
	Index int // of the input, from 0
	Out   Out
	Err   error // as of [Call]
}

// MapOptions say how [Map] calls.
type MapOptions struct {
	Options

	// Concurrency is how many calls there are at once; zero = 16. The queue should have room for
	// them.
	Concurrency int

	// Unordered yields results as they come. Otherwise they come in the order of the inputs, and at
	// most four times Concurrency of them are kept behind one that takes long.
	Unordered bool
}

// Map calls a function for each input and yields what came of each. A goroutine ranges over in, as
// far ahead as Concurrency allows; a panic of in is the process's end. When ctx ends, so do the
// calls that have begun, and no more begin: if an input is left, the next one has a result too, a
// [CanceledError], and none comes behind it in the order of the inputs. So it is when the loop over
// the results ends early; what it has not seen is left to the garbage collector. Map returns when
// all calls have ended, and in has returned.
//
//	for r := range jobs.Map[Thumb](ctx, w, "resize", slices.Values(images), jobs.MapOptions{}) { … }
func Map[Out, In any](ctx context.Context, c Caller, target string, in iter.Seq[In], o MapOptions) iter.Seq[Result[Out]] {
	return func(yield func(Result[Out]) bool) {
		if o.Concurrency <= 0 {
			o.Concurrency = 16
		}
		ctx, cancel := context.WithCancel(ctx)
		var wait sync.WaitGroup
		defer wait.Wait()
		room := make(chan struct{}, o.Concurrency)
		results := make(chan chan Result[Out], 4*o.Concurrency)  // each gets one
		shared := make(chan Result[Out], cap(results)+cap(room)) // nobody waits to put one in
		defer func() {
			cancel()
			for range results { // none is looked at
			}
		}()
		wait.Go(func() { // ends with in, or ctx
			defer close(results)
			i := 0
			for v := range in {
				room <- struct{}{} // the calls end soon after ctx
				out := shared
				if !o.Unordered {
					out = make(chan Result[Out], 1)
				}
				results <- out
				index, ended := i, ctx.Err() != nil
				wait.Go(func() { // ends with the call
					v, err := call[Out](ctx, c, target, v, o.Options)
					out <- Result[Out]{index, v, err}
					<-room
				})
				if ended { // this call says so
					return
				}
				i++
			}
		})
		for r := range results {
			if !yield(<-r) {
				return
			}
		}
	}
}
