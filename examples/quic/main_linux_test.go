package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/coppice-go/coppice/examples/examplestest"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

func start(t *testing.T, args ...string) (p *runtimetest.Program, url string) {
	t.Helper()
	p = runtimetest.Start(t, nil, append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	return p, p.Await(`^(https://[^/]+/)`)[1]
}

// worker is the worker that answers.
type worker struct {
	name            string
	generation, pid int
}

// client is one QUIC connection at a time, from a socket of its own.
type client struct {
	*http3.Transport
	url string
}

func newClient(t *testing.T, url string) client {
	tr := &http3.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		QUICConfig:      &quic.Config{MaxIdleTimeout: 2 * runtimetest.Patience, HandshakeIdleTimeout: runtimetest.Patience},
	}
	t.Cleanup(func() { tr.Close() })
	return client{tr, url}
}

// ask sends a message, which must come back.
func (c client) ask(ctx context.Context, path string) (who worker, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path, strings.NewReader("hello"))
	if err != nil {
		return worker{}, err
	}
	resp, err := c.RoundTrip(r)
	if err != nil {
		return worker{}, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return worker{}, err
	}
	if _, err := fmt.Sscanf(string(answer), "%s of generation %d, pid %d: hello", &who.name, &who.generation, &who.pid); err != nil {
		return worker{}, fmt.Errorf("%q: %w", answer, err)
	}
	return who, nil
}

// spread connects clients until each of two workers has at least two.
func spread(ctx context.Context, t *testing.T, url string) map[int][]client {
	t.Helper()
	by := map[int][]client{}
	for n := 0; ; n++ {
		if n == 100 {
			t.Fatalf("100 clients are with %d workers", len(by))
		}
		c := newClient(t, url)
		who, err := c.ask(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		by[who.pid] = append(by[who.pid], c)
		enough := 0
		for _, clients := range by {
			if len(clients) >= 2 {
				enough++
			}
		}
		if enough == 2 {
			return by
		}
	}
}

// TestKill: a worker is killed with −9. Its clients hear of it from its replacement,
// connect again and are served; those of the other worker notice nothing.
func TestKill(t *testing.T) {
	p, url := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
	defer cancel()
	by := spread(ctx, t, url)
	var victim int
	for pid := range by {
		victim = pid
	}
	if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for pid, clients := range by {
		for _, c := range clients {
			if pid != victim {
				if who, err := c.ask(ctx, ""); err != nil || who.pid != pid {
					t.Errorf("a client of the other worker: %v, %v", who, err)
				}
				continue
			}
			// It has been told already, by the answer to an acknowledgement say, or is now.
			who, err := c.ask(ctx, "")
			if _, reset := errors.AsType[*quic.StatelessResetError](err); reset {
				who, err = c.ask(ctx, "")
			}
			if err != nil || who.pid == victim {
				t.Errorf("a client of the killed worker: %v, %v", who, err)
			}
		}
	}
	end(t, p)
}

// TestReload: requests under way when the program is reloaded are answered by the old
// workers, in full; then every client is with the new ones. No request fails.
func TestReload(t *testing.T) {
	p, url := start(t, "-shutdown", "2m")
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
	defer cancel()
	by := spread(ctx, t, url)
	var asking sync.WaitGroup
	slow := 0
	for _, clients := range by {
		for _, c := range clients {
			slow++
			asking.Go(func() {
				if who, err := c.ask(ctx, "slow"); err != nil || who.generation != 1 {
					t.Errorf("under way: %v, %v", who, err)
				}
			})
		}
	}
	runtimetest.Eventually(t, "all are being answered", func() bool {
		return strings.Count(strings.Join(p.Lines(), "\n"), "answering slowly") == slow
	})
	p.Signal(syscall.SIGHUP)
	asking.Wait()
	for _, clients := range by {
		for _, c := range clients {
			asking.Go(func() {
				for generation := 1; generation == 1; {
					who, err := c.ask(ctx, "")
					if err != nil {
						t.Errorf("in the reload: %v", err)
						return
					}
					generation = who.generation
				}
			})
		}
	}
	asking.Wait()
	p.Await(`reloaded generation=2 `)
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
