package jobs

import (
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/runtime/jobs/internal/rules"
)

// The messages between callers, the queue and the workers. Callers ask with a submit or a reserve
// and are answered with an outcome; workers ask with a joining and are answered with a welcome.
type (
	// submit is a call. ID is unique in the tree: the address of the caller's process and a number.
	submit struct {
		ID, From, Func string
		Options        Options
		Progress       string `cbor:",omitempty"` // the actor of From that gets the progress; "" = none
		body
	}
	// reserve asks for a place in the queue.
	reserve struct{ ID, From, Tenant string }
	// cancel says that the caller no longer waits.
	cancel struct{ ID string }
	// outcome is what became of a call.
	outcome struct {
		What    rules.Outcome
		Answer  answerKind
		Text    string        `cbor:",omitempty"` // an error's, or a reason
		Stack   string        `cbor:",omitempty"`
		Worker  string        `cbor:",omitempty"`
		Exit    []byte        `cbor:",omitempty"` // a coppice.Exit
		Number  int           `cbor:",omitempty"` // deaths, or the bound of the queue, or a size
		Max     int           `cbor:",omitempty"` // of the size
		Timeout time.Duration `cbor:",omitempty"` // of the call, or to the next probe
		body
	}
	// joining is a worker's that takes calls.
	joining struct {
		ID   int
		Name string
	}
	// welcome has the number of the queue's life, which is in all that a worker says of calls.
	welcome struct {
		Life    int64
		Scratch string `cbor:",omitempty"` // has the directories of calls; "" = there are none
	}
	// leave says that a worker takes no more calls. It is answered with a left, when none is on its
	// way to the worker, and the queue has all of its answers.
	leave struct {
		Life int64
		ID   int
	}
	left struct{}
	// run is a call that is handed to a worker.
	run struct {
		Life     int64
		ID, Func string
		Run      int
		Scratch  string `cbor:",omitempty"` // the welcome's, which a run can overtake
		body
	}
	// runKey is a run of a call. IDs of the master's calls come again when it is replaced in place.
	runKey struct {
		Life int64
		ID   string
		Run  int
	}
	// soft ends the context of a run.
	soft struct {
		runKey
		Expired bool `cbor:",omitempty"` // its time is over; otherwise its caller has gone
	}
	// answer is what a run ended with.
	answer struct {
		Life   int64
		ID     string
		Run    int
		Worker int
		Kind   answerKind
		Text   string `cbor:",omitempty"`
		Stack  string `cbor:",omitempty"`
		body
	}
	// progress is on its way from a run to its caller.
	progress struct {
		Life int64
		ID   string
		Run  int
		body
	}
	// statusRequest asks for a Status.
	statusRequest struct{}
	// release ends the quarantine of a key.
	release struct{ Key string }
)

type answerKind uint8

const (
	isAnswer   answerKind = iota
	isError               // of the function
	isPanic               //
	isRefusal             // the worker could not run it
	isTooLarge            // the input is
	isTooLargeAnswer
)

func init() {
	actors.RegisterType[*submit]("coppice.jobs.submit")
	actors.RegisterType[reserve]("coppice.jobs.reserve")
	actors.RegisterType[cancel]("coppice.jobs.cancel")
	actors.RegisterType[*outcome]("coppice.jobs.outcome")
	actors.RegisterType[joining]("coppice.jobs.joining")
	actors.RegisterType[welcome]("coppice.jobs.welcome")
	actors.RegisterType[leave]("coppice.jobs.leave")
	actors.RegisterType[left]("coppice.jobs.left")
	actors.RegisterType[*run]("coppice.jobs.run")
	actors.RegisterType[soft]("coppice.jobs.soft")
	actors.RegisterType[*answer]("coppice.jobs.answer")
	actors.RegisterType[*progress]("coppice.jobs.progress")
	actors.RegisterType[statusRequest]("coppice.jobs.status.request")
	actors.RegisterType[Status]("coppice.jobs.status")
	actors.RegisterType[release]("coppice.jobs.release")
}
