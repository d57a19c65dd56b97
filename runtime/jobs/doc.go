// Package jobs calls worker processes like functions: typed calls, one at a time in a worker, with
// deadlines that hold, and the reason of a worker's death as the caller's error.
//
//	func resize(ctx context.Context, in Image) (Thumb, error) { … } // runs in a worker process
//
//	func main() {
//		coppice.Main(coppice.Config{Children: []coppice.ChildSpec{
//			jobs.Pool(jobs.Config{Pool: coppice.Pool{Name: "resize", Size: 4}}, jobs.Handle("resize", resize)),
//			coppice.Pool{Name: "web", Worker: web},
//		}})
//	}
//
// and in web, in another pool of jobs, or in the master:
//
//	thumb, err := jobs.Call[Thumb](ctx, w, "resize", image)
//	if died, ok := errors.AsType[*jobs.DiedError](err); ok { … died.Exit … }
//
// [Pool] is a supervisor over the pool's queue, an actor in the master, and the pool "workers".
// docs/jobs.md has what each error means, what a crash at each step of a call does, and the tests.
//
// # Values
//
// Inputs and answers are []byte and string as they are, protobuf messages, or else CBOR of the
// exported fields, as of an actor's message; no type is registered. Those of more than 128 KiB go
// by a file in memory: written once, read once, as a [View] not even that, and not copied by the
// master. An *os.File, a net.Conn and an [actors.HandleCarrier] move with their descriptors.
//
// # Guarantees
//
// A call ends once: with its answer or one of the errors of this package. It runs at most once,
// unless its Options say that it is Idempotent. A call that waits in the queue is not touched by
// the death of workers. Calls of one tenant are handed over in the order in which they came to the
// queue; tenants take turns.
//
// # Limits
//
// The queue is memory of the master. Its calls end with a [GoneError] when the master's program
// ends or is replaced in place. A job that must survive the machine belongs in a queue that does.
// Where workers are goroutines a call that does not end is left behind, not killed.
package jobs
