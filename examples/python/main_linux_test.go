package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

// TestPython: the processes are reloaded and killed under load: no client is refused, and none is
// cut by a reload, nor by one that fails. With COPPICE_SOAK there are 50 reloads, and a kill each
// 500 ms for 25 s.
func TestPython(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("there is no python3")
	}
	reloads, kills := 1, 1
	if os.Getenv("COPPICE_SOAK") != "" {
		reloads, kills = 50, 50
	}
	script := filepath.Join(t.TempDir(), "server.py")
	write := func(more string) {
		b, err := os.ReadFile("server.py")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(script, append([]byte(more), b...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	p := runtimetest.Start(t, nil, "-addr", "127.0.0.1:0", "-script", script)
	addr := p.Await(`^(http://\S+)`)[1]
	load := func(during func()) runtimetest.Counts {
		ctx, end := context.WithCancel(t.Context())
		counts := make(chan runtimetest.Counts)
		go func() {
			counts <- runtimetest.Load{URL: addr, InFlight: 4, Timeout: runtimetest.Patience}.Run(ctx)
		}()
		during()
		end()
		c := <-counts
		t.Log(c)
		if c.Refused+c.Hung+c.Other > 0 || c.OK == 0 {
			t.Error(c)
		}
		return c
	}
	seen := 0
	await := func(what string, n int) { // n lines that say what
		runtimetest.Eventually(t, what, func() bool {
			seen = 0
			for _, l := range p.Lines() {
				if strings.Contains(l, what) {
					seen++
				}
			}
			return seen >= n
		})
	}
	c := load(func() {
		for n := range reloads {
			p.Signal(syscall.SIGHUP)
			await(" reloaded generation=", n+1)
		}
		await(" drained pool=web ", 2*reloads)
		write("raise SystemExit('a new bug')\n") // the processes before stay
		p.Signal(syscall.SIGHUP)
		await("reload failed", 1)
		write("")
	})
	if c.Cut > 0 {
		t.Errorf("cut by reloads: %v", c)
	}
	load(func() {
		every := time.NewTicker(500 * time.Millisecond)
		defer every.Stop()
		for n := range kills {
			for _, l := range p.Lines() { // the newest of slot 0
				if _, pid, ok := strings.Cut(l, "process.name=web/0 "); ok && (strings.Contains(l, "replaced pool=web") || strings.Contains(l, "started path=master/web")) {
					seen = pidIn(t, pid)
				}
			}
			if err := syscall.Kill(seen, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			await("exited path=master/web/0 ", n+1)
			await("started path=master/web/0 ", n+2)
			if kills > 1 {
				<-every.C
			}
		}
	})
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// pidIn returns the process.pid of a line of the log.
func pidIn(t *testing.T, line string) (pid int) {
	t.Helper()
	_, rest, _ := strings.Cut(line, "process.pid=")
	for _, d := range strings.Fields(rest)[0] {
		pid = 10*pid + int(d-'0')
	}
	return pid
}
