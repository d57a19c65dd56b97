package main

import (
	"context"
	"io"
	"net/http"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

func start(t *testing.T) (p *runtimetest.Program, url string) {
	t.Helper()
	p = runtimetest.Start(t, nil, "-addr", "127.0.0.1:0")
	return p, p.Await(`^(http://[^/]+/)`)[1]
}

// TestKill: a worker is killed with −9 under load. Nobody is refused and nobody
// hangs; cut is only what the killed worker had claimed.
func TestKill(t *testing.T) {
	p, url := start(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	load := make(chan runtimetest.Counts, 1)
	go func() { load <- runtimetest.Load{URL: url, InFlight: 8}.Run(ctx) }()
	kids := runtimetest.Children(t, p.PID()) // the listener process, web/0, web/1
	for _, pid := range kids[1:] {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		runtimetest.Eventually(t, "a replacement", func() bool {
			return !runtimetest.Alive(pid) && len(runtimetest.Children(t, p.PID())) == len(kids)
		})
	}
	stop()
	c := <-load
	t.Log(c)
	if c.Refused != 0 || c.Hung != 0 || c.Other != 0 || c.OK == 0 || c.Cut > 2*8 {
		t.Errorf("%v (%v)", c, c.First)
	}
	end(t, p)
}

// TestDrain: what is being answered when the program is asked to end is answered.
func TestDrain(t *testing.T) {
	p, url := start(t)
	answer := make(chan error, 1)
	go func() {
		resp, err := http.Get(url + "slow")
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		answer <- err
	}()
	p.Await("answering slowly")
	end(t, p)
	if err := <-answer; err != nil {
		t.Error(err)
	}
}

// end asks the program to end, which it must do in order.
func end(t *testing.T, p *runtimetest.Program) {
	t.Helper()
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
