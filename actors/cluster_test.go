package actors_test

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
)

// A testCluster is trees of several hosts in one process. Their gateways, in slot 0, are joined by
// functions that run in order, in place of trunks.
type testCluster struct {
	t     testing.TB
	hosts map[string]*testHost // by boot
	lanes atomic.Int64         // that were opened

	gate atomic.Pointer[func(from string, f *fdipc.Frame)] // of each frame on a lane; it may wait
}

type testHost struct {
	*testTree
	c    *testCluster
	name string

	mu    sync.Mutex
	lanes map[*testLane]struct{}
	ended map[string][]byte        // processes of this host
	cut   map[string]bool          // boots that no trunk leads to
	offer map[uint64]*testLane     // that wait for LaneAccepted
	carry map[string]chan<- func() // boot -> what is to be done there, in order
	to    *actors.Carrier
}

// testLane is a lane between two hosts.
type testLane struct {
	number   uint64 // of the opener
	accepted uint64 // of the other
	from, to string
	inc      uint64 // of from
	a, b     *testHost
	near     *fdipc.Conn // at a
	far      *fdipc.Conn // at b
	joined   chan struct{}
	rested   atomic.Bool // a process has left it
}

// newCluster returns trees named a, b, c ... with n children each, and a gateway.
func newCluster(t testing.TB, n int, names ...string) *testCluster {
	c := &testCluster{t: t, hosts: make(map[string]*testHost)}
	for _, name := range names {
		c.start(name, "boot"+name, n)
	}
	return c
}

// at returns the tree with a boot.
func (c *testCluster) at(boot string) *testHost { return c.hosts[boot] }

// start starts a host and joins it to the others.
func (c *testCluster) start(name, boot string, n int) *testHost {
	h := &testHost{testTree: newHost(c.t, name, boot, 0), c: c, name: name}
	c.hosts[boot] = h
	h.startGateway()
	for i := range n {
		h.Start(i + 1)
	}
	for other := range c.hosts {
		if other != boot {
			c.heal(boot, other)
		}
	}
	return h
}

func (h *testHost) startGateway() {
	h.mu.Lock()
	h.lanes, h.ended, h.cut = make(map[*testLane]struct{}), make(map[string][]byte), make(map[string]bool)
	h.offer, h.carry = make(map[uint64]*testLane), make(map[string]chan<- func())
	h.mu.Unlock()
	g := h.Start(0)
	h.to = g.Carry(h)
	h.Master.SetGateway(g.Address())
}

// bootOf returns the boot of the host.
func (h *testHost) bootOf() string { return actors.Boot(h.Master.Address()) }

// heal makes a trunk between two hosts.
func (c *testCluster) heal(x, y string) {
	for _, pair := range [][2]string{{x, y}, {y, x}} {
		h, other := c.hosts[pair[0]], c.hosts[pair[1]]
		todo := make(chan func(), 1<<16)
		h.mu.Lock()
		h.cut[pair[1]], h.carry[pair[1]] = false, todo
		h.mu.Unlock()
		h.to.HostUp(other.name, pair[1])
		go func() { // ends with the trunk
			for f := range todo {
				f()
			}
		}()
	}
}

// lose ends the trunk between the hosts a and b.
func (c *testCluster) lose() {
	for _, pair := range [][2]string{{"boota", "bootb"}, {"bootb", "boota"}} {
		h := c.hosts[pair[0]]
		h.mu.Lock()
		if todo := h.carry[pair[1]]; todo != nil {
			close(todo)
		}
		h.cut[pair[1]] = true
		delete(h.carry, pair[1])
		var ends []*fdipc.Conn
		for l := range h.lanes {
			if l.a.bootOf() == pair[1] || l.b.bootOf() == pair[1] {
				ends = append(ends, l.endAt(h))
				delete(h.lanes, l)
			}
		}
		h.mu.Unlock()
		for _, c := range ends {
			if c != nil {
				_ = c.Close()
				<-c.Done()
			}
		}
		h.to.HostDown(pair[1])
	}
}

// breakLanes ends the lanes that the host has, at both ends. No process has ended.
func (h *testHost) breakLanes() {
	h.mu.Lock()
	lanes := slices.Collect(maps.Keys(h.lanes))
	h.mu.Unlock()
	for _, l := range lanes {
		for _, end := range []*testHost{l.a, l.b} {
			_ = l.endAt(end).Close()
			<-l.endAt(end).Done()
			end.mu.Lock()
			delete(end.lanes, l)
			end.mu.Unlock()
		}
		l.a.to.LaneEnded(l.number, l.from, l.to, nil)
		l.b.to.LaneEnded(l.accepted, l.to, l.from, nil)
	}
}

func (l *testLane) endAt(h *testHost) *fdipc.Conn {
	if h == l.a {
		return l.near
	}
	return l.far
}

// there does f at another host, after what was to be done there before. It returns false if no
// trunk leads there.
func (h *testHost) there(boot string, f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	todo := h.carry[boot]
	if todo == nil {
		return false
	}
	todo <- f
	return true
}

func (h *testHost) config(l *testLane, local, foreign string) fdipc.Config {
	other := func() *fdipc.Conn { return l.endAt(h.c.hosts[actors.Boot(foreign)]) }
	return fdipc.Config{
		Handler: func(_ *fdipc.Conn, f *fdipc.Frame) {
			<-l.joined
			if gate := h.c.gate.Load(); gate != nil {
				(*gate)(local, f)
			}
			if actors.Rested(f) {
				l.rested.Store(true)
			}
			if c := other(); c != nil {
				g := fdipc.Frame{Kind: f.Kind, Lane: f.Lane, Flags: f.Flags, Target: f.Target, Trace: f.Trace, Payload: f.Payload}
				_ = c.Send(context.Background(), &g)
			}
		},
		Closed: func(*fdipc.Conn, error) {
			go func() { // ends when it is known whether the process has ended
				var why []byte
				h.c.await(func() bool {
					h.mu.Lock()
					defer h.mu.Unlock()
					why = h.ended[local]
					return why != nil || l.rested.Load() || h.cut[actors.Boot(foreign)]
				})
				if why == nil && l.rested.Load() {
					h.mu.Lock()
					delete(h.lanes, l)
					h.mu.Unlock()
					number := l.accepted
					if l.from == local {
						number = l.number
					}
					h.to.LaneEnded(number, local, foreign, nil)
				}
				h.there(actors.Boot(foreign), func() {
					at := h.c.hosts[actors.Boot(foreign)]
					number, from := l.number, l.from
					if from == local {
						number = l.accepted
					}
					at.to.LaneEnded(number, foreign, local, why)
					if c := other(); c != nil {
						_ = c.Close()
					}
				})
			}()
		},
	}
}

// await polls, as there is nothing to wait for in a tree that may have been killed.
func (c *testCluster) await(f func() bool) {
	for !f() && c.t.Context().Err() == nil {
		yield()
	}
}

func (h *testHost) Begin() {}

func (h *testHost) OpenLane(number uint64, from string, incarnation uint64, to string, end actors.HalfLane) {
	h.c.lanes.Add(1)
	l := &testLane{number: number, from: from, to: to, inc: incarnation, a: h, b: h.c.hosts[actors.Boot(to)], joined: make(chan struct{})}
	conn, err := end.Conn(h.config(l, from, to))
	if err != nil {
		h.to.Failed(number, to, err)
		return
	}
	l.near = conn
	h.mu.Lock()
	h.lanes[l] = struct{}{}
	h.mu.Unlock()
	if !h.there(actors.Boot(to), func() { l.b.offered(l) }) {
		close(l.joined)
		_ = conn.Close()
		h.to.Refused(number, to, nil)
	}
}

func (h *testHost) offered(l *testLane) {
	h.mu.Lock()
	ref := uint64(len(h.offer) + 1)
	h.offer[ref] = l
	h.mu.Unlock()
	h.to.Offer(ref, l.from, l.inc, l.to)
}

func (h *testHost) LaneAccepted(ref, number, incarnation uint64, end actors.HalfLane) {
	h.mu.Lock()
	l := h.offer[ref]
	l.accepted = number
	cut := h.cut[l.a.bootOf()]
	h.mu.Unlock()
	conn, err := end.Conn(h.config(l, l.to, l.from))
	if err != nil || cut {
		end.Close()
		if conn != nil {
			_ = conn.Close()
		}
		return
	}
	l.far = conn
	h.mu.Lock()
	h.lanes[l] = struct{}{}
	h.mu.Unlock()
	close(l.joined)
	h.there(l.a.bootOf(), func() { l.a.to.Opened(l.number, l.to, incarnation) })
}

func (h *testHost) LaneDeclined(ref uint64, why []byte) {
	h.mu.Lock()
	l := h.offer[ref]
	h.mu.Unlock()
	why = append([]byte(nil), why...)
	h.there(l.a.bootOf(), func() {
		l.a.to.Refused(l.number, l.to, why)
		close(l.joined)
		_ = l.near.Close()
	})
}

func (h *testHost) ProcessEnded(address string, why []byte) {
	h.mu.Lock()
	h.ended[address] = append([]byte(nil), why...)
	var ends []*fdipc.Conn
	for l := range h.lanes {
		if l.from == address || l.to == address {
			ends = append(ends, l.endAt(h))
		}
	}
	h.mu.Unlock()
	for _, c := range ends {
		c.PeerGone() // what it has sent is still carried
	}
}
