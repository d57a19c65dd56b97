package fdipc_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// Either side of a hand-over is killed at a named point, or at any moment. By the inodes that were
// claimed and by what the clients received, every connection was claimed once, came back, or died
// with its claimant.
func TestKill(t *testing.T) {
	rnd := seeds(t)
	points := []struct{ who, point string }{
		{"worker", "frame"},
		{"worker", "claimed"},
		{"worker", "reported"},
		{"worker", "served"},
		{"worker", "closed"},
		{"worker", "any"},
		{"dispatcher", "frame"},
		{"dispatcher", "claimed"},
		{"dispatcher", "sent"},
		{"dispatcher", "settled"},
		{"dispatcher", "any"},
	}
	sum := make(map[string]int)
	for i := range soak(50, 1000) {
		p := points[i%len(points)]
		at, n := 1+rnd.IntN(24), 24+rnd.IntN(24)
		delay := time.Duration(rnd.IntN(3000)) * time.Microsecond
		t.Run(fmt.Sprintf("%d/%s/%s", i, p.who, p.point), func(t *testing.T) {
			check := leaks(t)
			t.Run("", func(t *testing.T) {
				if p.who == "worker" {
					killWorker(t, p.point, at, n, delay, sum)
				} else {
					killDispatcher(t, p.point, at, n, delay, sum)
				}
			})
			check()
		})
	}
	t.Logf("connections: %v", sum)
}

// book is what the test knows of claims.
type book struct {
	sync.Mutex
	claims map[uint64]int // by inode
	left   int            // handles not settled for good
	done   chan struct{}
	count  chan uint64
}

func newBook(n int) *book {
	return &book{claims: make(map[uint64]int), left: n, done: make(chan struct{}), count: make(chan uint64, 1)}
}

func (b *book) handle(_ *fdipc.Conn, f *fdipc.Frame) {
	b.Lock()
	defer b.Unlock()
	switch f.Kind {
	case kindClaim:
		b.claims[f.Target]++
	case kindCount:
		b.count <- f.Target
	}
}

func (b *book) settled(h *fdipc.Handle, o fdipc.Outcome) *client {
	b.Lock()
	defer b.Unlock()
	c := h.Tag.(*client)
	c.outcome = o
	c.settled++
	if o == fdipc.Claimed {
		if b.left--; b.left == 0 {
			close(b.done)
		}
	}
	return c
}

// killWorker: the test offers to a worker that dies, and what comes back to a second.
func killWorker(t *testing.T, point string, at, n int, delay time.Duration, sum map[string]int) {
	cs, hs := clients(t, n)
	b := newBook(n)
	again := make(chan *fdipc.Handle, n)
	first := make(map[*client]bool) // claimed by the worker that dies
	second := spawn(t, fdipc.Config{Handler: b.handle, ClaimTimeout: -1, Resolved: func(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
		b.settled(h, o)
		if o != fdipc.Claimed {
			t.Errorf("second worker: %v", o)
			h.Close()
		}
	}}, map[string]string{"ROLE": "worker", "MARK": "2"})
	closed := make(chan struct{})
	dying := spawn(t, fdipc.Config{
		Handler:      b.handle,
		ClaimTimeout: -1, // only death brings back
		Resolved: func(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
			c := b.settled(h, o)
			if o == fdipc.Claimed {
				first[c] = true
			} else {
				again <- h
			}
		},
		Closed: func(*fdipc.Conn, error) { close(closed) },
	}, map[string]string{"ROLE": "worker", "MARK": "1", "POINT": point, "AT": fmt.Sprint(at)})
	if point == "any" {
		time.AfterFunc(delay, func() { _ = dying.cmd.Process.Kill() })
	}
	for len(hs) > 0 {
		k := min(1+len(hs)%4, len(hs))
		err := dying.Send(context.Background(), &fdipc.Frame{Kind: kindConn, Lane: fdipc.Lane(len(hs) % 2), Payload: make([]byte, 100*k), Handles: hs[:k]})
		if err != nil { // it is dead: they are still ours
			break
		}
		hs = hs[k:]
	}
	wait(t, "death", dying.exited)
	wait(t, "end of the Conn", closed)
	close(again)
	for h := range again {
		hs = append(hs, h)
	}
	for _, h := range hs {
		if err := second.Send(context.Background(), &fdipc.Frame{Kind: kindConn, Handles: []*fdipc.Handle{h}}); err != nil {
			t.Fatal(err)
		}
	}
	wait(t, "end of all offers", b.done)
	readAll(t, cs)
	b.Lock()
	for i, c := range cs {
		died := first[c]
		switch {
		case died && string(c.got) == "1":
			sum["served by the dying"]++
		case died && len(c.got) == 0:
			sum["died with their claimant"]++
		case !died && string(c.got) == "2":
			sum["came back"]++
		default:
			t.Errorf("client %d got %q, claimed by the dying: %v", i, c.got, died)
		}
		if b.claims[c.inode] > 1 {
			t.Errorf("inode %d was claimed %d times", c.inode, b.claims[c.inode])
		}
	}
	b.Unlock()
	if n := openIn(t, b, second); n != 0 {
		t.Errorf("the second worker has %d descriptors more than in the beginning", n)
	}
}

// openIn asks a worker how many descriptors it has opened and not closed. Those of its Conns do not
// count.
func openIn(t *testing.T, b *book, c *child) int {
	t.Helper()
	conns := 3 // the two ends of the data lane, the table
	if err := c.Send(context.Background(), &fdipc.Frame{Kind: kindCount}); err != nil {
		t.Fatal(err)
	}
	return int(wait(t, "count", b.count)) - conns
}

// killDispatcher: the test hands to a dispatcher that dies, which hands on to a worker that lives.
// What comes back to the test it serves itself.
func killDispatcher(t *testing.T, point string, at, n int, delay time.Duration, sum map[string]int) {
	cs, hs := clients(t, n)
	b := newBook(n)
	second := spawn(t, fdipc.Config{Handler: b.handle}, map[string]string{"ROLE": "worker", "MARK": "2"})
	serve := func(h *fdipc.Handle) {
		c, err := h.Conn()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = c.Write([]byte("0"))
		c.Close()
	}
	closed := make(chan struct{})
	dying := spawn(t, fdipc.Config{
		Handler:      b.handle,
		ClaimTimeout: -1, // only death brings back
		Resolved: func(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
			if h.Tag == nil { // the link
				return
			}
			if b.settled(h, o); o != fdipc.Claimed {
				serve(h)
			}
		},
		Closed: func(*fdipc.Conn, error) { close(closed) },
	}, map[string]string{"ROLE": "dispatcher", "POINT": point, "AT": fmt.Sprint(at)})
	x, y, err := fdipc.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	for f, to := range map[*os.File]*child{x: dying, y: second} {
		h, err := fdipc.HandleOf(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := to.Send(context.Background(), &fdipc.Frame{Kind: kindLink, Handles: []*fdipc.Handle{h}}); err != nil {
			t.Fatal(err)
		}
	}
	if point == "any" {
		time.AfterFunc(delay, func() { _ = dying.cmd.Process.Kill() })
	}
	for _, h := range hs {
		if err := dying.Send(context.Background(), &fdipc.Frame{Kind: kindConn, Handles: []*fdipc.Handle{h}}); err != nil {
			b.settled(h, fdipc.Returned)
			serve(h)
		}
	}
	wait(t, "death", dying.exited)
	wait(t, "end of the Conn", closed)
	readAll(t, cs)
	b.Lock()
	defer b.Unlock()
	for i, c := range cs {
		switch {
		case c.outcome == fdipc.Claimed && string(c.got) == "2":
			sum["handed on"]++
		case c.outcome == fdipc.Claimed && len(c.got) == 0:
			sum["died with the dispatcher"]++
		case c.outcome == fdipc.Returned && string(c.got) == "0":
			sum["came back"]++
		default:
			t.Errorf("client %d got %q, %v", i, c.got, c.outcome)
		}
		if b.claims[c.inode] > 1 {
			t.Errorf("inode %d was claimed %d times", c.inode, b.claims[c.inode])
		}
	}
}
