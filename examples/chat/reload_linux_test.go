package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/coppice-go/coppice/examples/examplestest"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// ends counts how websockets ended, at their clients.
type ends struct {
	opened  atomic.Int64
	goodbye atomic.Int64 // a close frame of "going away"
	other   atomic.Int64 // another, or none
	resets  atomic.Int64 // by TCP, seen below the library
}

func (e *ends) String() string {
	return fmt.Sprintf("%d opened: %d ended by a close frame 1001, %d otherwise; %d reset", e.opened.Load(), e.goodbye.Load(), e.other.Load(), e.resets.Load())
}

// client returns one that counts the connections that are reset under it.
func (e *ends) client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return resets{c, e}, nil
		},
	}}
}

type resets struct {
	net.Conn
	*ends
}

func (c resets) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, syscall.ECONNRESET) {
		c.resets.Add(1)
	}
	return n, err
}

// chatter is a client that connects, talks until it is told to go, and connects again.
type chatter struct {
	url        string
	ends       *ends
	generation atomic.Int64 // of the worker that it hears
}

func (c *chatter) run(ctx context.Context, t *testing.T) {
	client := c.ends.client()
	for ctx.Err() == nil {
		ws, _, err := websocket.Dial(ctx, c.url, &websocket.DialOptions{HTTPClient: client})
		if err != nil {
			if ctx.Err() == nil {
				t.Errorf("dial: %v", err)
			}
			return
		}
		c.ends.opened.Add(1)
		for err == nil {
			// Over and over, so that a close frame crosses a message, too.
			var text []byte
			if _, text, err = ws.Read(ctx); err != nil {
				break
			}
			var name string
			var generation int64
			if _, err := fmt.Sscanf(string(text), "%s of generation %d", &name, &generation); err == nil {
				c.generation.Store(generation)
			}
			if err = ws.Write(ctx, websocket.MessageText, []byte("/who")); err != nil {
				for err = nil; err == nil; {
					_, _, err = ws.Read(ctx) // what was said before
				}
			}
		}
		_ = ws.CloseNow()
		switch {
		case ctx.Err() != nil: // the test is over
		case websocket.CloseStatus(err) == websocket.StatusGoingAway:
			c.ends.goodbye.Add(1)
		default:
			c.ends.other.Add(1)
			t.Errorf("a websocket ended with %v", err)
		}
	}
}

// TestReloads: the program is reloaded again and again under websockets that are
// talking. Each of a worker that goes ends by its close frame, none is reset, and
// every client is served by the next generation.
func TestReloads(t *testing.T) {
	reloads := 20
	if testing.Short() {
		reloads = 3
	}
	const clients = 8
	p, url := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var (
		ended   ends
		all     []*chatter
		running sync.WaitGroup
	)
	for range clients {
		c := &chatter{url: url + "room?name=ann", ends: &ended}
		all = append(all, c)
		running.Go(func() { c.run(ctx, t) })
	}
	examplestest.Reload(t, p, reloads, func(generation int) bool {
		for _, c := range all {
			if c.generation.Load() != int64(generation) {
				return false
			}
		}
		return true
	})
	cancel()
	running.Wait()
	t.Logf("%d reloads: websockets: %v", reloads, &ended)
	if n := ended.goodbye.Load(); n < int64(reloads*clients) {
		t.Errorf("%d were told, want each of %d at each of %d reloads", n, clients, reloads)
	}
	if ended.other.Load() != 0 || ended.resets.Load() != 0 {
		t.Error("want none that ended without a close frame")
	}
	end(t, p)
}

// TestDeadline: a client that gets its close frame and does not answer it holds the
// worker up until the drain's deadline, and is then cut and counted.
func TestDeadline(t *testing.T) {
	p, url := start(t, "-workers", "1", "-shutdown", (3 * time.Second).String())
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
	defer cancel()
	c := enter(ctx, t, url+"room?name=ann") // it is never read
	p.Signal(syscall.SIGHUP)
	p.Await(`connections cut name=chat/0 forced=1 `)
	var err error
	for err == nil {
		_, _, err = c.Read(ctx)
	}
	if websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("ended with %v, want the close frame of going away", err)
	}
	end(t, p)
}
