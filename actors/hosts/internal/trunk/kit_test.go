package trunk_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/coppice-go/coppice/actors/hosts/hoststest"
	"github.com/coppice-go/coppice/actors/hosts/internal/trunk"
	"github.com/coppice-go/coppice/fdipc"
)

// told is an error that a callback was given.
type told struct{ err error }

// host is a Mesh of a test, and what it has told.
type host struct {
	*trunk.Mesh
	name   string
	up     chan *trunk.Trunk
	down   chan told
	opened chan *trunk.Lane // accepted; to be joined
	failed chan told

	mu      sync.Mutex
	history []string
}

func (h *host) note(s string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.history = append(h.history, s)
}

// start starts a host whose boot is its name in the network; edit may be nil.
func start(t *testing.T, n *hoststest.Net, name string, edit func(*trunk.Config)) *host {
	t.Helper()
	h := &host{name: name, up: make(chan *trunk.Trunk, 4096), down: make(chan told, 4096), opened: make(chan *trunk.Lane, 4096), failed: make(chan told, 4096)}
	cfg := trunk.Config{
		Cluster: "shop", Self: trunk.Host{Name: name, Boot: "boot" + name, Incarnation: 1},
		Dial: func(ctx context.Context, address string) (net.Conn, error) { return n.Dial(ctx, name, address) },
		Open: func(l *trunk.Lane, info []byte) {
			if err := l.Accept(append([]byte("re: "), info...)); err == nil {
				h.opened <- l
			}
		},
		Up:     func(t *trunk.Trunk) { h.note("up"); h.up <- t },
		Down:   func(_ *trunk.Trunk, err error) { h.note("down"); h.down <- told{err} },
		Failed: func(_ string, err error) { h.failed <- told{err} },
	}
	if edit != nil {
		edit(&cfg)
	}
	m, err := trunk.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Mesh = m
	serving := make(chan error, 1)
	l := n.Listen(name)
	go func() { serving <- m.Serve(l) }()
	t.Cleanup(func() {
		m.Close()
		if err := <-serving; !errors.Is(err, trunk.ErrClosed) {
			t.Errorf("Serve of %s: %v", name, err)
		}
	})
	return h
}

// peers are the addresses of hosts in a Net.
func peers(names ...string) map[string]string {
	p := make(map[string]string)
	for _, name := range names {
		p[name] = name
	}
	return p
}

// two starts hosts a and b that have a trunk.
func two(t *testing.T, n *hoststest.Net) (a, b *host) {
	t.Helper()
	a, b = start(t, n, "a", nil), start(t, n, "b", nil)
	a.SetPeers(peers("a", "b"))
	b.SetPeers(peers("a", "b"))
	<-a.up
	<-b.up
	return a, b
}

// open opens a lane from a host to another, and joins it there.
func open(t *testing.T, from, to *host, sink trunk.Sink) (*trunk.Lane, *trunk.Lane, chan *trunk.LaneEnd) {
	t.Helper()
	l, reply, err := from.Trunk(to.name).Open(t.Context(), []byte("hello"))
	if err != nil || string(reply) != "re: hello" {
		t.Fatalf("open: %q, %v", reply, err)
	}
	other, ended := <-to.opened, make(chan *trunk.LaneEnd, 2)
	other.Join(sink, func(e *trunk.LaneEnd) { ended <- e })
	return l, other, ended
}

// collector is a Sink that keeps what it gets.
type collector struct {
	mu     sync.Mutex
	frames []fdipc.Frame
	full   func() bool   // whether TrySend has no room
	gate   chan struct{} // Send waits for it; nil: it does not
}

func (c *collector) TrySend(f *fdipc.Frame) error {
	if c.full != nil && c.full() {
		return fdipc.ErrFull
	}
	c.keep(f)
	return nil
}

func (c *collector) Send(ctx context.Context, f *fdipc.Frame) error {
	if c.gate != nil {
		select {
		case <-c.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c.keep(f)
	return nil
}

func (c *collector) keep(f *fdipc.Frame) {
	g := *f
	g.Payload = append([]byte{}, f.Payload...)
	g.More = false
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frames = append(c.frames, g)
}

func (c *collector) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.frames)
}

// numbered is a frame of that size at least, with a number in it and a pattern after it.
func numbered(lane fdipc.Lane, n, size int) *fdipc.Frame {
	f := &fdipc.Frame{Kind: 0x30, Lane: lane, Flags: uint8(n), Target: uint64(n) << 8, Payload: make([]byte, max(8, size))}
	binary.LittleEndian.PutUint64(f.Payload, uint64(n))
	for i := 8; i < len(f.Payload); i += 97 {
		f.Payload[i] = byte(i * n)
	}
	if n%3 == 0 {
		f.Trace[n%len(f.Trace)] = 1
	}
	return f
}

// bubble runs a test in a bubble of time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}
