package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/jobs"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

// postgres starts a server of the system's PostgreSQL, and returns how to reach it.
func postgres(t *testing.T) (dsn string) {
	t.Helper()
	programs, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // Debian's
	if len(programs) == 0 {
		t.Skip("no PostgreSQL in /usr/lib/postgresql")
	}
	dir, err := os.MkdirTemp("", "durable") //nolint:usetesting // another user has to get there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	var attr *syscall.SysProcAttr
	if os.Getuid() == 0 { // which PostgreSQL refuses
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Skip("run as root, and there is no user postgres")
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		if err := os.Chown(dir, int(uid), int(gid)); err != nil {
			t.Fatal(err)
		}
		attr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	command := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(filepath.Dir(programs[len(programs)-1]), name), args...)
		cmd.Dir, cmd.SysProcAttr = dir, attr
		return cmd
	}
	data := filepath.Join(dir, "data")
	if out, err := command("initdb", "-D", data, "-A", "trust", "-U", "durable", "--no-sync").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	start := command("pg_ctl", "-D", data, "-w", "-l", filepath.Join(dir, "log"),
		"-o", fmt.Sprintf("-c fsync=off -c listen_addresses= -k %s", dir), "start")
	if out, err := start.CombinedOutput(); err != nil {
		t.Fatalf("pg_ctl: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := command("pg_ctl", "-D", data, "-m", "immediate", "stop").CombinedOutput(); err != nil {
			t.Errorf("pg_ctl: %v\n%s", err, out)
		}
	})
	return fmt.Sprintf("host=%s user=durable dbname=postgres", dir)
}

// TestAfter: only what is the job's doing counts against it.
func TestAfter(t *testing.T) {
	killed := func(why coppice.KillReason) error { return &jobs.DiedError{Exit: &coppice.Exit{Killed: why}} }
	for name, c := range map[string]struct {
		err   error
		state string // of a job that has killed a worker once
		had   int
	}{
		"its own error":       {&jobs.FuncError{Text: "bad"}, "failed", 2},
		"a panic":             {&jobs.PanicError{}, "failed", 2},
		"a death":             {killed(""), "failed", 2},
		"out of memory":       {killed(coppice.KilledMemory), "failed", 2},
		"a deadline":          {&jobs.DeadlineError{Killed: true}, "failed", 2},
		"too large":           {&jobs.TooLargeError{}, "failed", 2},
		"a reload":            {killed(coppice.KilledStop), "waiting", 1},
		"an operator":         {killed(coppice.KilledOperator), "waiting", 1},
		"the end of the tree": {&jobs.GoneError{Err: context.Canceled}, "waiting", 1},
		"a full queue":        {&jobs.FullError{}, "waiting", 1},
		"a drain":             {&jobs.CanceledError{Cause: context.Canceled}, "waiting", 1},
	} {
		if state, had := after(c.err, 1); state != c.state || had != c.had {
			t.Errorf("%s: %s after %d attempts, want %s after %d", name, state, had, c.state, c.had)
		}
	}
}

// TestNothingLost kills takers and the whole program with jobs under way: each job is run to its
// end, and the one that kills its worker is set aside after its second death.
func TestNothingLost(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a PostgreSQL")
	}
	dsn := postgres(t)
	db, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	if _, err := db.Exec(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	const n = 100
	if _, err := db.Exec(t.Context(), `INSERT INTO job (input) SELECT CASE g WHEN 10 THEN 'poison' WHEN 20 THEN 'x' ELSE g::text END
		FROM generate_series(1, $1::int) g`, n); err != nil {
		t.Fatal(err)
	}
	env := []string{"DSN=" + dsn}
	p := runtimetest.Start(t, env)
	p.Await(`job 5: done: 25`)
	p.Signal(syscall.SIGKILL) // the whole program; its children end with it
	p.Wait()
	p = runtimetest.Start(t, env)
	taker, err := strconv.Atoi(p.Await(`path=master/takers/0 .*process.pid=(\d+)`)[1])
	if err != nil {
		t.Fatal(err)
	}
	p.Await(`job 50: done: 2500`)
	if err := syscall.Kill(taker, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	p.Await(`job 10: failed: jobs: worker work/workers/\d died with the call: exit code 9`)
	// A job is locked until the process that took it has ended, and that may outlive its master.
	for waiting, deadline := 1, time.Now().Add(runtimetest.Patience); waiting > 0; {
		if err := db.QueryRow(t.Context(), `SELECT count(*) FROM job WHERE state = 'waiting'`).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d jobs still wait", waiting)
		}
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	rows, err := db.Query(t.Context(), `SELECT id, input, state, coalesce(result, '') FROM job
		WHERE (state, result) IS DISTINCT FROM ('done', (id * id)::text) ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	var other []string
	for rows.Next() {
		var id int
		var input, state, result string
		if err := rows.Scan(&id, &input, &state, &result); err != nil {
			t.Fatal(err)
		}
		other = append(other, fmt.Sprintf("%d %s %s", id, input, state))
	}
	if got := fmt.Sprint(other); got != "[10 poison failed 20 x failed]" {
		t.Errorf("jobs that are not done: %s", got)
	}
}
