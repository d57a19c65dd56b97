// Scripts runs the scripts of several tenants. Each tenant has a pool of processes of its own, with
// a limit of memory and of time: a script that breaks one is ended, with its process if need be,
// and only its tenant waits for the next.
//
//	go -C examples/scripts run . -tenants ann,eve
//	go -C examples/scripts run . -chaos
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/coppice-go/coppice/examples/internal/chaos"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/jobs"
	"github.com/coppice-go/coppice/supervisor"
)

// limits of a script, and of a process
var limits = jobs.Config{
	Queue:    16, // scripts of a tenant that wait
	Defaults: jobs.Options{Timeout: time.Second, Grace: time.Second / 5},
}

const (
	maxMemory = 256 << 20
	maxScript = 64 << 10
	maxOutput = 64 << 10
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8060", "listen `address`; port 0 picks one")
	names := flag.String("tenants", "ann,eve", "who may run scripts")
	broken := flag.Bool("chaos", false, "have the last tenant run bad scripts and the first one good ones, and end")
	flag.Parse()

	often := supervisor.Intensity{Max: 250, Period: 10 * time.Second} // scripts may kill that many
	tenants := strings.Split(*names, ",")
	var children []coppice.ChildSpec
	for _, tenant := range tenants {
		cfg := limits
		cfg.Pool = coppice.Pool{
			Name: tenant, Size: 1, Spares: 1, Intensity: often,
			Recycle: coppice.Recycle{HardMemory: maxMemory, Every: 100 * time.Millisecond},
			Environment: coppice.Environment{Sandbox: coppice.Sandbox{
				NoFiles: true, NoTCP: true, NoCapabilities: true, Scoped: true, Syscalls: "compute",
				BestEffort: true, // older kernels lack some
			}},
		}
		children = append(children, jobs.Pool(cfg, jobs.Handle("run", run)))
	}
	coppice.Main(coppice.Config{
		Intensity: often,
		Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) {
			url := "http://" + rt.Listeners()[0].Addr.String() + "/"
			fmt.Printf("%s  master pid %d\n", url, os.Getpid())
			if *broken {
				chaos.Run(rt, func(rt *coppice.Runtime) { harm(url, tenants[0], tenants[len(tenants)-1]) })
			}
		}},
		Children: append(children, coppice.Pool{
			Name: "web", Size: 2, Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listen("tcp", *addr)
				if err != nil {
					return err
				}
				mux := http.NewServeMux()
				for _, tenant := range tenants {
					mux.Handle("POST /"+tenant, handler(w, tenant))
				}
				return w.Serve(ctx, ln, &http.Server{Handler: mux})
			},
		}),
	})
}

// run is the function of the pools: it runs a script, and returns what that prints.
func run(ctx context.Context, script string) (string, error) {
	var out strings.Builder
	thread := &starlark.Thread{Print: func(thread *starlark.Thread, line string) {
		if out.Len()+len(line) > maxOutput {
			thread.Cancel("it prints too much")
			return
		}
		fmt.Fprintln(&out, line)
	}}
	// The interpreter looks at this between two steps. Within a step nothing can end it but the end
	// of its process, which comes Grace later.
	defer context.AfterFunc(ctx, func() { thread.Cancel("its time is over") })()
	options := &syntax.FileOptions{While: true, TopLevelControl: true, GlobalReassign: true}
	_, err := starlark.ExecFileOptions(options, thread, "script", script, nil)
	return out.String(), err
}

// handler runs the script that a request has.
func handler(w *coppice.Worker, tenant string) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		script, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxScript))
		if err != nil {
			http.Error(rw, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		sum := sha256.Sum256(script)
		call := jobs.Start[string](r.Context(), w, tenant+"/run", string(script), jobs.Options{Key: hex.EncodeToString(sum[:8])})
		out, err := call.Wait()
		if err != nil {
			http.Error(rw, err.Error(), status(err))
			return
		}
		_, _ = io.WriteString(rw, out) // an error is a client that left
	})
}

// status: 503 if another try may go well, or else 422, since it is the script's fault.
func status(err error) int {
	if _, ok := errors.AsType[*jobs.FullError](err); ok {
		return http.StatusServiceUnavailable
	}
	if _, ok := errors.AsType[*jobs.GoneError](err); ok {
		return http.StatusServiceUnavailable
	}
	return http.StatusUnprocessableEntity
}
