package main

import (
	"context"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/coder/websocket"

	"github.com/coppice-go/coppice/examples/examplestest"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

func start(t *testing.T, args ...string) (p *runtimetest.Program, url string) {
	t.Helper()
	p = runtimetest.Start(t, nil, append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	return p, p.Await(`^(ws://[^/]+/)`)[1]
}

// enter has a client enter a room, and reads its welcome.
func enter(ctx context.Context, t *testing.T, url string) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	if _, _, err := c.Read(ctx); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestRoom: who is in a room hears all that is said there, who comes and who leaves, and nothing of
// other rooms.
func TestRoom(t *testing.T) {
	p, url := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
	defer cancel()
	send := func(c *websocket.Conn, text string) {
		t.Helper()
		if err := c.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(c *websocket.Conn, want string) {
		t.Helper()
		if _, text, err := c.Read(ctx); err != nil || string(text) != want {
			t.Fatalf("heard %q, %v; want %q", text, err, want)
		}
	}
	ann := enter(ctx, t, url+"red?name=ann")
	hear(ann, "ann is here")
	eve := enter(ctx, t, url+"blue?name=eve")
	hear(eve, "eve is here")
	bob := enter(ctx, t, url+"red?name=bob")
	hear(bob, "bob is here")
	hear(ann, "bob is here")
	kim := enter(ctx, t, url+"red?name=kim")
	for _, c := range []*websocket.Conn{ann, bob, kim} {
		hear(c, "kim is here")
	}
	send(eve, "hello")
	hear(eve, "eve: hello")
	send(ann, "hello")
	for _, c := range []*websocket.Conn{ann, bob, kim} {
		hear(c, "ann: hello")
	}
	send(bob, "/who")
	hear(bob, "3 here: ann, bob, kim")
	if err := kim.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	hear(ann, "kim left")
	if _, resp, err := websocket.Dial(ctx, url+"no%20room", nil); err == nil || resp.StatusCode != 404 {
		t.Errorf("a bad name: %v", err)
	}
	for _, c := range []*websocket.Conn{ann, bob, eve} {
		_ = c.CloseNow()
	}
	end(t, p)
}

// TestChaos: of 500 clients the kill of a process with rooms costs none its connection, the kill of
// one with clients costs its own theirs, and a reload tells each; and the rooms are whole again.
func TestChaos(t *testing.T) { examplestest.Chaos(t, "-addr", "127.0.0.1:0") }

// TestDrain: every client gets a close frame that says why, and no reset.
func TestDrain(t *testing.T) {
	p, url := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
	defer cancel()
	var clients sync.WaitGroup
	for range 8 {
		c := enter(ctx, t, url+"room?name=ann")
		clients.Go(func() {
			var err error
			for err == nil {
				_, _, err = c.Read(ctx)
			}
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
		if strings.Contains(line, " ERROR ") {
			t.Error(line)
		}
	}
}
