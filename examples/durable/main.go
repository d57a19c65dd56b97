// Durable runs jobs that a table of PostgreSQL keeps, so that they survive the death of any process
// and of the machine. Coppice's own queue is memory; this is the pattern for what must not be lost.
//
//	DSN=postgres:///jobs go -C examples/durable run .
//	go -C examples/durable run . -chaos
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/jobs"
	"github.com/coppice-go/coppice/supervisor"
)

// schema is a job's whole life: waiting, then done or failed. While it runs its row is locked, by
// the connection of the process that took it, and by nothing that outlives it.
const schema = `CREATE TABLE IF NOT EXISTS job (
	id bigserial PRIMARY KEY, input text NOT NULL, state text NOT NULL DEFAULT 'waiting',
	attempts int NOT NULL DEFAULT 0, not_before timestamptz NOT NULL DEFAULT now(), result text)`

const take = `SELECT id, input, attempts FROM job WHERE state = 'waiting' AND not_before <= now()
	ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED`

// maxAttempts is how often a job may kill its worker before it is set aside.
const maxAttempts = 2

func main() {
	broken := flag.Bool("chaos", false, "kill and reload it while it has jobs, look at what became of them, and end")
	flag.Parse()
	if *broken {
		if err := harm(); err != nil {
			fmt.Fprintln(os.Stderr, "durable:", err)
			os.Exit(1)
		}
		return
	}
	often := supervisor.Intensity{Max: 250, Period: 10 * time.Second} // jobs may kill that many
	coppice.Main(coppice.Config{
		Intensity: often,
		Children: []coppice.ChildSpec{
			jobs.Pool(jobs.Config{
				Pool:     coppice.Pool{Name: "work", Size: 2, Intensity: often},
				Defaults: jobs.Options{Timeout: 10 * time.Second},
				Poison:   jobs.Poison{Off: true}, // the table counts the deaths, and keeps the count
			}, jobs.Handle("work", work)),
			coppice.Pool{Name: "takers", Size: 2, Intensity: often, Worker: takeAll},
		},
	})
}

// work is the function of the pool. It may run twice for one job: what it does elsewhere it does by
// the job's number, so that a second time changes nothing.
func work(_ context.Context, input string) (string, error) {
	if input == "poison" {
		os.Exit(9)
	}
	<-time.After(5 * time.Millisecond) // as if it were much to do
	n, err := strconv.Atoi(input)
	return strconv.Itoa(n * n), err
}

// takeAll is the worker function of the takers: it runs one job after the other.
func takeAll(ctx context.Context, w *coppice.Worker) error {
	conf, err := pgx.ParseConfig(os.Getenv("DSN"))
	if err != nil {
		return err
	}
	// So pg_stat_activity says which process has which connection.
	conf.RuntimeParams["application_name"] = fmt.Sprintf("%s pid %d", w.Name(), os.Getpid())
	db, err := pgx.ConnectConfig(ctx, conf)
	if err != nil {
		return err
	}
	defer db.Close(context.WithoutCancel(ctx))
	if _, err := db.Exec(ctx, schema); err != nil {
		return err
	}
	if err := w.Ready(); err != nil {
		return err
	}
	for ctx.Err() == nil {
		found, err := takeOne(w.WorkContext(), w, db) // a job that runs is not cut by the drain
		if err != nil {
			return err // the connection is lost, and the lock with it: another taker has the job
		}
		if !found {
			select { // or LISTEN and NOTIFY
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}

// takeOne takes a job, runs it and writes down what came of it, in one transaction.
func takeOne(ctx context.Context, w *coppice.Worker, db *pgx.Conn) (found bool, err error) {
	tx, err := db.Begin(ctx)
	if err != nil {
		return false, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // after a commit it does nothing
	var id int64
	var input string
	var attempts int
	if err := tx.QueryRow(ctx, take).Scan(&id, &input, &attempts); errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	result, err := jobs.Call[string](ctx, w, "work", input)
	state := "done"
	if err != nil {
		result = err.Error()
		state, attempts = after(err, attempts)
	}
	_, err = tx.Exec(ctx, `UPDATE job SET state = $2, result = $3, attempts = $4,
		not_before = now() + interval '100 ms' * ($4::int + 1) WHERE id = $1`, id, state, result, attempts)
	if err == nil {
		err = tx.Commit(ctx)
	}
	if err == nil {
		fmt.Printf("job %d: %s: %s\n", id, state, result)
	}
	return true, err
}

// after returns the state of a job whose run ended with an error, and the attempts that it has had
// then. The function's own error is final. What was not the job's doing is no attempt: a worker
// that was killed by an operator or for a reload, a queue that is full or has ended.
func after(err error, attempts int) (state string, had int) {
	if _, ok := errors.AsType[*jobs.FuncError](err); ok {
		return "failed", attempts + 1
	}
	_, full := errors.AsType[*jobs.FullError](err)
	_, gone := errors.AsType[*jobs.GoneError](err)
	_, canceled := errors.AsType[*jobs.CanceledError](err)
	exit, killed := errors.AsType[*coppice.Exit](err)
	own := []coppice.KillReason{"", coppice.KilledMemory, coppice.KilledHung, coppice.KilledCall}
	if full || gone || canceled || killed && !slices.Contains(own, exit.Killed) {
		return "waiting", attempts
	}
	if attempts++; attempts >= maxAttempts {
		return "failed", attempts
	}
	return "waiting", attempts
}
