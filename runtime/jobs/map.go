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
// far ahead as Concurrency allows. When the loop over the results ends early, or ctx, the calls are
// cancelled and no more begin; Map returns when all have ended, and in has returned.
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
		defer cancel()
		room := make(chan struct{}, o.Concurrency)
		results := make(chan chan Result[Out], 4*o.Concurrency) // each gets one
		shared := make(chan Result[Out])
		wait.Go(func() { // ends with in, or ctx
			defer close(results)
			i := -1
			for v := range in {
				select {
				case room <- struct{}{}:
				case <-ctx.Done():
					return
				}
				i++
				out := shared
				if !o.Unordered {
					out = make(chan Result[Out], 1)
				}
				select {
				case results <- out:
				case <-ctx.Done():
					return
				}
				index := i
				wait.Go(func() { // ends with the call
					v, err := call[Out](ctx, c, target, v, o.Options)
					<-room
					select {
					case out <- Result[Out]{index, v, err}:
					case <-ctx.Done():
					}
				})
			}
		})
		for r := range results {
			var got Result[Out]
			select {
			case got = <-r:
			case <-ctx.Done():
				return
			}
			if !yield(got) {
				return
			}
		}
	}
}
