//go:build linux

// Package examplestest is what the tests of several examples have in common.
package examplestest

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// Programs is a pool web of other programs under load, whose tree is of process P. Rounds is how
// often the pool is reloaded, and a process of it killed: once, or with COPPICE_SOAK 50 times.
type Programs struct {
	*testing.T
	P      *runtimetest.Program
	Rounds int

	url string
}

// StartPrograms starts this program with arguments, as [runtimetest.Start] does.
func StartPrograms(t *testing.T, args ...string) *Programs {
	t.Helper()
	p := runtimetest.Start(t, nil, args...)
	rounds := 1
	if os.Getenv("COPPICE_SOAK") != "" {
		rounds = 50
	}
	return &Programs{T: t, P: p, Rounds: rounds, url: p.Await(`^(http://\S+)`)[1]}
}

// load asks while during runs, and fails the test if a client is refused or hangs.
func (p *Programs) load(during func()) runtimetest.Counts {
	p.Helper()
	ctx, end := context.WithCancel(p.Context())
	counts := make(chan runtimetest.Counts)
	go func() {
		counts <- runtimetest.Load{URL: p.url, InFlight: 4, Timeout: runtimetest.Patience}.Run(ctx)
	}()
	during()
	end()
	c := <-counts
	p.Log(c)
	if c.Refused+c.Hung+c.Other > 0 || c.OK == 0 {
		p.Error(c)
	}
	return c
}

// Await waits for n lines that have what.
func (p *Programs) Await(what string, n int) {
	p.Helper()
	runtimetest.Eventually(p, what, func() bool {
		seen := 0
		for _, l := range p.P.Lines() {
			if strings.Contains(l, what) {
				seen++
			}
		}
		return seen >= n
	})
}

// Reload reloads the pool under load, and then calls more; no client is cut.
func (p *Programs) Reload(more func()) {
	p.Helper()
	c := p.load(func() {
		for n := range p.Rounds {
			p.P.Signal(syscall.SIGHUP)
			p.Await(" reloaded generation=", n+1)
		}
		p.Await(" drained pool=web ", 2*p.Rounds)
		more()
	})
	if c.Cut > 0 {
		p.Errorf("cut by reloads: %v", c)
	}
}

// Kill kills the process in slot 0 under load, with 500 ms from kill to kill; each is replaced.
func (p *Programs) Kill() {
	p.Helper()
	p.load(func() {
		every := time.NewTicker(500 * time.Millisecond)
		defer every.Stop()
		for n := range p.Rounds {
			pid := 0
			for _, l := range p.P.Lines() { // the newest of slot 0
				if _, rest, ok := strings.Cut(l, "process.name=web/0 "); ok && (strings.Contains(l, "replaced pool=web") || strings.Contains(l, "started path=master/web")) {
					pid = pidIn(rest)
				}
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				p.Fatal(err)
			}
			p.Await("exited path=master/web/0 ", n+1)
			p.Await("started path=master/web/0 ", n+2)
			if p.Rounds > 1 {
				<-every.C
			}
		}
	})
}

// End asks the program to end, which it does with code 0.
func (p *Programs) End() {
	p.Helper()
	p.P.Signal(syscall.SIGTERM)
	if code := p.P.Wait(); code != 0 {
		p.Errorf("exit code %d", code)
	}
}

// pidIn returns the process.pid of a line of the log.
func pidIn(line string) (pid int) {
	_, rest, _ := strings.Cut(line, "process.pid=")
	for _, d := range strings.Fields(rest)[0] {
		pid = 10*pid + int(d-'0')
	}
	return pid
}
