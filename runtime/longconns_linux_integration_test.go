//go:build linux

package coppice_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// holder is a server of long connections: it greets each client, and closes its end when the client
// has, or when it drains.
type holder struct {
	mu    sync.Mutex
	conns []net.Conn
	down  bool
}

func (h *holder) Serve(ln net.Listener) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		h.mu.Lock()
		if h.down {
			_ = c.Close()
		} else {
			h.conns = append(h.conns, c)
		}
		h.mu.Unlock()
		_, _ = c.Write([]byte("+"))
		go func() { // ends with the connection
			_, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}()
	}
}

func (h *holder) Shutdown(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = true
	for _, c := range h.conns {
		_ = c.Close()
	}
	return nil
}

func init() {
	for _, policy := range []coppice.Policy{coppice.RoundRobin, coppice.LeastLoaded, coppice.Hash} {
		trees["long connections "+policy.String()] = func() coppice.Config {
			return pool(4, func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.ListenSpec(ctx, coppice.ListenerSpec{Name: "long", Network: "tcp", Address: "127.0.0.1:0", Policy: policy})
				if err != nil {
					return err
				}
				return w.Serve(ctx, ln, &holder{})
			})
		}
	}
}

func init() {
	trees["one long connection"] = func() coppice.Config {
		return pool(1, func(ctx context.Context, w *coppice.Worker) error {
			ln, err := w.ListenSpec(ctx, coppice.ListenerSpec{Name: "long", Network: "tcp", Address: "127.0.0.1:0", Limits: coppice.Limits{PerWorker: 1}})
			if err != nil {
				return err
			}
			return w.Serve(ctx, ln, &holder{})
		})
	}
}

// TestReloadAtLimit: while every worker is at its limit and clients wait in the backlog, the old
// listener process ends in order, and the new one serves them when there is room.
func TestReloadAtLimit(t *testing.T) {
	p := startTree(t, "one long connection")
	events := p.Events(coppice.FromNow)
	var clients [3]net.Conn
	for i := range clients {
		c, err := net.Dial("tcp", p.Listeners()[0].Addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients[i] = c
	}
	if err := p.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	listener := func(e coppice.Event) bool {
		return e.Kind == coppice.WorkerDrained && e.Name == "listener"
	}
	if e := p.await(events, "the old listener process has ended", listener); e.Reason.Kind != supervisor.Shutdown {
		t.Errorf("it has ended: %v", e.Reason)
	}
	for _, c := range clients {
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		c.Close()
	}
}

// TestReloadClosesOnce: 200 clients with long connections, as of websockets, reconnect when they
// are closed. A reload closes each of them once: a client that reconnects gets a worker of the new
// generation.
func TestReloadClosesOnce(t *testing.T) {
	for _, policy := range []coppice.Policy{coppice.RoundRobin, coppice.LeastLoaded, coppice.Hash} {
		t.Run(policy.String(), func(t *testing.T) {
			clients := 200
			if testing.Short() {
				clients = 50
			}
			p := startTree(t, "long connections "+policy.String())
			addr := p.Listeners()[0].Addr.String()
			var mu sync.Mutex
			var over bool
			conns := make([]net.Conn, clients)
			closed, greeted := make([]int, clients), make([]int, clients)
			var all sync.WaitGroup
			for i := range clients {
				all.Go(func() {
					for {
						// Each has an address of its own, which Hash looks at.
						d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i+1))}}
						c, err := d.DialContext(t.Context(), "tcp", addr)
						mu.Lock()
						if err != nil || over {
							mu.Unlock()
							if err != nil && !over {
								t.Error(err)
							} else if err == nil {
								c.Close()
							}
							return
						}
						conns[i] = c
						mu.Unlock()
						_, err = io.ReadFull(c, make([]byte, 1))
						mu.Lock()
						if err == nil {
							greeted[i]++
						}
						mu.Unlock()
						_, _ = io.Copy(io.Discard, c)
						c.Close()
						mu.Lock()
						if over {
							mu.Unlock()
							return
						}
						closed[i]++
						mu.Unlock()
					}
				})
			}
			each := func(greetings int) func() bool {
				return func() bool {
					mu.Lock()
					defer mu.Unlock()
					for _, n := range greeted {
						if n < greetings {
							return false
						}
					}
					return true
				}
			}
			runtimetest.Eventually(t, "all clients to be connected", each(1))
			if err := p.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			runtimetest.Eventually(t, "all clients to be back", each(2))
			mu.Lock()
			over = true
			more := 0
			for i := range clients {
				if closed[i] > 1 {
					more++
				}
				_ = conns[i].Close()
			}
			mu.Unlock()
			all.Wait()
			if more > 0 {
				t.Errorf("%d of %d clients were closed more than once", more, clients)
			}
		})
	}
}
