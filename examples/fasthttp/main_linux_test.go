package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/examples/examplestest"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

func start(t *testing.T, args ...string) (p *runtimetest.Program, url string) {
	t.Helper()
	p = runtimetest.Start(t, nil, append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	return p, p.Await(`^(http://[^/]+/)`)[1]
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

// TestReloads: the program reloads while clients keep their connections, and no request fails.
func TestReloads(t *testing.T) {
	p, url := start(t)
	examplestest.ReloadUnder(t, p, url, 5)
	end(t, p)
}

// TestDrainIdle: a connection that is idle when its worker is to go, or has not asked yet, goes on
// with the next worker, however often; one that has half a request behind it is answered first.
func TestDrainIdle(t *testing.T) {
	p, url := start(t, "-workers", "1", "-shutdown", "2m", "-idle", "1m") // longer than a reload takes
	const request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	type client struct {
		net.Conn
		r *bufio.Reader
	}
	clients := make([]client, 8)
	send := func(c client, text string) {
		t.Helper()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
	}
	answer := func(c client) (who string) {
		t.Helper()
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.Close {
			t.Fatalf("closes: %v, %v", resp.Close, err)
		}
		return string(b)
	}
	for i := range clients {
		c, err := net.Dial("tcp", strings.Trim(strings.TrimPrefix(url, "http:"), "/"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients[i] = client{c, bufio.NewReader(c)}
		if i > 0 { // the first one has not asked yet
			send(clients[i], request)
			answer(clients[i])
		}
	}
	half := clients[len(clients)-1]
	for generation := 2; generation < 5; generation++ {
		send(half, request+request[:16]) // a request, and a line of the next one
		answer(half)
		p.Signal(syscall.SIGHUP)
		p.Await(fmt.Sprintf(`reloaded generation=%d `, generation))
		send(half, request[16:])
		answer(half)
		for _, c := range clients {
			for who := ""; who != fmt.Sprintf("web/0 of generation %d\n", generation); { // the old worker hears of it a moment later, maybe
				send(c, request)
				who = answer(c)
			}
		}
	}
	for _, c := range clients {
		c.Close()
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

// TestChaos: the program harms itself, and loses nothing that it should not.
func TestChaos(t *testing.T) { examplestest.Chaos(t, "-addr", "127.0.0.1:0") }
