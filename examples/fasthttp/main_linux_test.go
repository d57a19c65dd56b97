package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

func start(t *testing.T, args ...string) (p *runtimetest.Program, url string) {
	t.Helper()
	p = runtimetest.Start(t, nil, append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	return p, p.Await(`^(http://[^/]+/)`)[1]
}

// TestKill: a worker is killed with −9 under load. No client is refused and none
// hangs; cut is only what the killed worker had claimed.
func TestKill(t *testing.T) {
	p, url := start(t)
	kids := runtimetest.Children(t, p.PID()) // the listener process, web/0, web/1
	c := runtimetest.Load{URL: url, InFlight: 8}.RunOverKills(t, p, kids[1:])
	if c.Refused != 0 || c.Hung != 0 || c.Other != 0 || c.Cut > 2*8 {
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

// TestReloads: the program reloads while clients keep their connections. Each client gets the word
// to open another connection, and no request fails.
func TestReloads(t *testing.T) {
	p, url := start(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	load := make(chan runtimetest.Counts, 1)
	go func() { load <- runtimetest.Load{URL: url, InFlight: 4, KeepAlive: true}.Run(ctx) }()
	const reloads = 5
	for i := range reloads {
		p.Signal(syscall.SIGHUP)
		p.Await(fmt.Sprintf(`reloaded generation=%d `, i+2))
	}
	stop()
	c := <-load
	t.Logf("%d reloads: %v", reloads, c)
	if c.OK == 0 || c.OK != c.Sent() {
		t.Errorf("want all ok: %v", c)
	}
	end(t, p)
}

// TestDrainIdle: a connection that is idle when its worker is to go answers one more
// request, which says that it was the last.
func TestDrainIdle(t *testing.T) {
	p, url := start(t, "-workers", "1", "-shutdown", "2m", "-idle", "1m")
	c, err := net.Dial("tcp", strings.Trim(strings.TrimPrefix(url, "http:"), "/"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	ask := func() (who string, closes bool) {
		t.Helper()
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b), resp.Close
	}
	const first = "web/0 of generation 1\n"
	if who, closes := ask(); who != first || closes {
		t.Fatalf("%q, closes: %v", who, closes)
	}
	p.Signal(syscall.SIGHUP)
	p.Await(`reloaded generation=2 `)
	for closes := false; !closes; { // the old worker hears of it a moment later, maybe
		var who string
		if who, closes = ask(); who != first {
			t.Fatalf("%q answers", who)
		}
	}
	if b, err := r.ReadByte(); err != io.EOF {
		t.Errorf("read %q, %v: want EOF", b, err)
	}
	end(t, p)
}

// end asks the program to end, which it must do in order.
func end(t *testing.T, p *runtimetest.Program) {
	t.Helper()
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, line := range p.Lines() {
		if strings.Contains(line, " ERROR ") && !strings.Contains(line, "(killed)") { // by the test
			t.Error(line)
		}
	}
}
