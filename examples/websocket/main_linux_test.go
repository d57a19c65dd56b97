package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/coder/websocket"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

func start(t *testing.T, args ...string) (p *runtimetest.Program, url string) {
	t.Helper()
	p = runtimetest.Start(t, nil, append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	return p, p.Await(`^(ws://[^/]+/)`)[1]
}

func dial(ctx context.Context, t *testing.T, url string) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

// say sends a message and returns the name of the worker that answers.
func say(ctx context.Context, c *websocket.Conn) (worker string, err error) {
	if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		return "", err
	}
	_, text, err := c.Read(ctx)
	worker, _, _ = strings.Cut(string(text), " ")
	return worker, err
}

// TestKill: a killed worker costs its own clients their connections, and costs other clients
// nothing; they connect again and are served.
func TestKill(t *testing.T) {
	p, url := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
	defer cancel()
	clients := map[string][]*websocket.Conn{}
	for range 8 {
		c := dial(ctx, t, url)
		worker, err := say(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		clients[worker] = append(clients[worker], c)
	}
	if len(clients["chat/0"]) != 4 || len(clients["chat/1"]) != 4 {
		t.Fatalf("clients by worker: %d and %d", len(clients["chat/0"]), len(clients["chat/1"]))
	}
	for _, kid := range runtimetest.Children(t, p.PID()) {
		if title, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", kid)); strings.Contains(string(title), "chat/0") {
			if err := syscall.Kill(kid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range clients["chat/0"] {
		if _, _, err := c.Read(ctx); err == nil {
			t.Error("a client of the killed worker hears something")
		}
		again := dial(ctx, t, url)
		if _, err := say(ctx, again); err != nil {
			t.Errorf("connected again: %v", err)
		}
		if err := again.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Error(err)
		}
	}
	for _, c := range clients["chat/1"] {
		if worker, err := say(ctx, c); err != nil || worker != "chat/1" {
			t.Errorf("a client of the other worker: %q, %v", worker, err)
		}
		if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Error(err)
		}
	}
	end(t, p)
}

// TestDrain: every client gets a close frame that says why, and no reset.
func TestDrain(t *testing.T) {
	p, url := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
	defer cancel()
	var clients sync.WaitGroup
	for range 8 {
		c := dial(ctx, t, url)
		if _, err := say(ctx, c); err != nil {
			t.Fatal(err)
		}
		clients.Go(func() {
			_, _, err := c.Read(ctx)
			if websocket.CloseStatus(err) != websocket.StatusGoingAway {
				t.Errorf("ended with %v, want the close frame of going away", err)
			}
		})
	}
	end(t, p)
	clients.Wait()
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
