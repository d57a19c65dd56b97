package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	numbers  = 300         // jobs
	patience = time.Minute // for all of them, on a busy machine
)

// harm gives the table jobs, runs this program, kills all of it and starts it anew, kills a taker,
// and reloads. It returns an error if a job is lost, or ends as it must not. Without a DSN it has a
// server of its own.
func harm() (err error) {
	if os.Getenv("DSN") == "" {
		dsn, end, err := server()
		if err != nil {
			return err
		}
		defer func() { _ = end() }()
		_ = os.Setenv("DSN", dsn) // of what is started, too
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	db, err := pgx.Connect(ctx, os.Getenv("DSN"))
	if err != nil {
		return err
	}
	defer db.Close(context.WithoutCancel(ctx))
	if _, err := db.Exec(ctx, schema); err != nil {
		return err
	}
	t := &table{ctx: ctx, db: db}
	if n := t.count("true"); n > 0 || t.err != nil {
		return errors.Join(t.err, fmt.Errorf("there are %d jobs already", n))
	}
	if _, err := db.Exec(ctx, `INSERT INTO job (input) SELECT CASE g WHEN 20 THEN 'poison' WHEN 40 THEN 'no number' ELSE g::text END
		FROM generate_series(1, $1::int) g`, numbers); err != nil {
		return err
	}

	program, err := start()
	if err != nil {
		return err
	}
	t.until(func() bool { return t.report("kill -9 of the program", 50) })
	_ = program.Process.Kill() // its children end with it
	_ = program.Wait()         // with an error, of course
	if program, err = start(); err != nil {
		return err
	}
	defer func() { _ = program.Process.Kill() }() // if it has not ended
	t.until(func() bool { return t.report("kill -9 of takers/0", 100) })
	first := t.taker()
	if p, err := os.FindProcess(first); err == nil {
		_ = p.Kill() // or it has just ended
	}
	var second int
	t.until(func() bool { second = t.taker(); return second != 0 && second != first })
	t.until(func() bool { return t.report("a reload", 150) })
	if err := program.Process.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	t.until(func() bool { third := t.taker(); return third != 0 && third != second })
	t.until(func() bool { return t.count("state = 'waiting'") == 0 })
	if err := program.Process.Signal(syscall.SIGTERM); err != nil {
		return errors.Join(t.err, err)
	}
	if err := program.Wait(); err != nil || t.err != nil {
		return errors.Join(t.err, err)
	}
	good := t.count("result = (id * id)::text AND state = 'done'")
	fmt.Printf("at the end: %d jobs done\n", good)
	rows, _ := db.Query(ctx, `SELECT input, attempts, result FROM job WHERE state = 'failed' ORDER BY id`) // the error is Err's, too
	failed := 0
	for ; rows.Next(); failed++ {
		var input, result string
		var attempts int
		if err := rows.Scan(&input, &attempts, &result); err != nil {
			return err
		}
		fmt.Printf("%s failed, attempts %d: %s\n", input, attempts, result)
	}
	if t.err == nil && (good != numbers-2 || failed != 2) {
		t.err = errors.New("jobs are lost, or done wrong")
	}
	return errors.Join(t.err, rows.Err())
}

// table is the table of jobs, as the harm sees it. After an error its methods do nothing.
type table struct {
	ctx context.Context
	db  *pgx.Conn
	err error
}

// one returns the number that a query has as its answer, 0 = it has none.
func (t *table) one(sql string) (n int) {
	if t.err == nil {
		if err := t.db.QueryRow(t.ctx, sql).Scan(&n); !errors.Is(err, pgx.ErrNoRows) {
			t.err = err
		}
	}
	return n
}

// count returns how many jobs there are that are so.
func (t *table) count(so string) int { return t.one("SELECT count(*) FROM job WHERE " + so) }

// taker returns the process of takers/0, 0 = it has no connection.
func (t *table) taker() int {
	return t.one(`SELECT split_part(application_name, ' pid ', 2)::int FROM pg_stat_activity
		WHERE application_name LIKE 'takers/0 %' ORDER BY backend_start DESC LIMIT 1`)
}

// report prints how many jobs are done when least are.
func (t *table) report(before string, least int) bool {
	n := t.count("state = 'done'")
	if n >= least {
		fmt.Printf("%s: %d of %d jobs done before\n", before, n, numbers)
	}
	return n >= least
}

// until polls until ok returns true.
func (t *table) until(ok func() bool) {
	for t.err == nil && !ok() {
		<-time.After(20 * time.Millisecond)
	}
}

// start starts this program.
func start() (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Stderr = os.Stderr
	return cmd, cmd.Start()
}
