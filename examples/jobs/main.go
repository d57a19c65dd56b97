// Jobs takes jobs, answers at once, and runs them in worker processes: one that kills its worker is
// run again after a pause that doubles, and set aside after its third attempt. The list of jobs is
// an actor of the master, which outlives its workers, reloads, and its own program when that is
// replaced in place.
//
//	go run ./examples/jobs -addr 127.0.0.1:8080
//	go run ./examples/jobs -chaos
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/examples/internal/chaos"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/jobs"
	"github.com/coppice-go/coppice/supervisor"
)

const maxInput = 4 << 10 // bytes of a job

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "listen `address`; port 0 picks one")
	broken := flag.Bool("chaos", false, "give it good and bad jobs, kill its workers meanwhile, print what became of them, and end")
	flag.Parse()

	often := supervisor.Intensity{Max: 250, Period: 10 * time.Second} // jobs may kill that many
	coppice.Main(coppice.Config{
		Intensity: often,
		Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) {
			url := "http://" + rt.Listeners()[0].Addr.String() + "/"
			fmt.Printf("%s  master pid %d\n", url, os.Getpid())
			if *broken {
				chaos.Run(rt, func(rt *coppice.Runtime) { harm(rt, url) })
			}
		}},
		Children: []coppice.ChildSpec{
			jobs.Pool(jobs.Config{
				Pool:     coppice.Pool{Name: "work", Size: 2, Spares: 1, Intensity: often},
				Defaults: jobs.Options{Timeout: time.Second / 2, Grace: time.Second / 5},
			}, jobs.Handle("run", run)),
			coppice.Actor{Name: "list", New: func() actor.Actor { return &list{jobs: map[int]*job{}} }},
			coppice.Pool{Name: "web", Size: 2, Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listen("tcp", *addr)
				if err != nil {
					return err
				}
				return w.Serve(ctx, ln, &http.Server{Handler: api(w)})
			}},
		},
	})
}

// task is the input of a run.
type task struct {
	Input   string
	Attempt int // from 1 on
}

// run is the function of the pool. It squares a number; some inputs are orders. It may run twice
// for one job: what it does elsewhere must not matter then.
func run(_ context.Context, t task) (string, error) {
	switch {
	case t.Input == "poison", t.Input == "flaky" && t.Attempt == 1:
		os.Exit(9)
	case t.Input == "flaky":
		return "well", nil
	case t.Input == "endless":
		for n := 0; ; n++ {
		}
	}
	<-time.After(20 * time.Millisecond) // as if it were much to do
	n, err := strconv.Atoi(t.Input)
	return strconv.Itoa(n * n), err
}

// api is what clients ask; the list answers.
func api(w *coppice.Worker) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /jobs", func(rw http.ResponseWriter, r *http.Request) {
		input, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxInput))
		if err != nil {
			http.Error(rw, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		answer(rw, r, w, submit{string(input)}, http.StatusAccepted)
	})
	mux.HandleFunc("GET /jobs/{id}", func(rw http.ResponseWriter, r *http.Request) {
		id, _ := strconv.Atoi(r.PathValue("id")) // 0 is no job's
		answer(rw, r, w, look{id}, http.StatusOK)
	})
	mux.HandleFunc("GET /jobs", func(rw http.ResponseWriter, r *http.Request) {
		answer(rw, r, w, count{}, http.StatusOK)
	})
	return mux
}

// answer asks the list, and writes its answer.
func answer(rw http.ResponseWriter, r *http.Request, w *coppice.Worker, what any, status int) {
	said, err := actors.Ask[reply](r.Context(), w.System(), w.Lookup("list"), what)
	switch {
	case errors.Is(err, actors.ErrDown), errors.Is(err, actors.ErrNoActor), said.Full:
		http.Error(rw, "try again later", http.StatusServiceUnavailable)
	case err != nil:
		http.Error(rw, err.Error(), http.StatusInternalServerError)
	case said.Text == "":
		http.Error(rw, "no such job, or it is long over", http.StatusNotFound)
	default:
		rw.WriteHeader(status)
		fmt.Fprintln(rw, said.Text)
	}
}
