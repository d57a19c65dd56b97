package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/bench/yardstick/peers"
	"github.com/coppice-go/coppice/fdipc"
)

// kinds of frames between the two processes of a row
const (
	kindWork  fdipc.Kind = 0x40 + iota
	kindEnd              // the last one: asks for the count of what arrived
	kindTotal            // in Target
)

// children are the roles of the other process. Each runs until its Conn ends.
var children = map[string]func(*os.File){
	"actors 1": actorsChild("1"),
	"actors 2": actorsChild("2"),
	"handles":  counting(func(f *fdipc.Frame) int { return claimAll(f) }),
	"messages": counting(func(*fdipc.Frame) int { return 1 }),
	"echo": func(f *os.File) {
		serve(f, func(c *fdipc.Conn, f *fdipc.Frame) {
			if err := c.TrySend(f); err != nil {
				c.Close()
			}
		})
	},
}

func serve(f *os.File, handler func(*fdipc.Conn, *fdipc.Frame)) {
	c, err := fdipc.New(f, fdipc.Config{Handler: handler, Credits: credits})
	if err != nil {
		fmt.Fprintln(os.Stderr, "yardstick:", err)
		os.Exit(1)
	}
	<-c.Done()
}

const credits = 1024

func counting(count func(*fdipc.Frame) int) func(*os.File) {
	return func(f *os.File) {
		n := 0
		serve(f, func(c *fdipc.Conn, f *fdipc.Frame) {
			if f.Kind == kindEnd {
				_ = c.TrySend(&fdipc.Frame{Kind: kindTotal, Target: uint64(n)})
				return
			}
			n += count(f)
		})
	}
}

func claimAll(f *fdipc.Frame) (n int) {
	for _, h := range f.Handles {
		if h.Claim() == nil {
			n++
		}
		h.Close()
	}
	return n
}

// flow is what drive sends.
type flow struct {
	role, unit string
	resolved   func(*fdipc.Conn, *fdipc.Handle, fdipc.Outcome) // optional
	send       func(*fdipc.Conn) (int, error)
	// resend sends what came back of a flow, when all of it has been heard of, and says how much
	// that was. Optional.
	resend func(*fdipc.Conn) (int, error)

	claimTimeout time.Duration  // 0: the default
	started      func(*process) // before the first send; optional
}

// drive lets the flow run for d, waits until the child has got everything, and gives the result.
func drive(d time.Duration, w flow) (r result, err error) {
	total := make(chan uint64, 1)
	c, p, err := spawn(w.role, fdipc.Config{
		Credits: credits, Resolved: w.resolved, ClaimTimeout: w.claimTimeout,
		Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { total <- f.Target },
	})
	if err != nil {
		return r, err
	}
	ask := func() (uint64, error) {
		if err := c.Send(context.Background(), &fdipc.Frame{Kind: kindEnd, Lane: fdipc.Data}); err != nil {
			return 0, err
		}
		select {
		case got := <-total:
			return got, nil
		case <-c.Done():
			return 0, c.Err()
		}
	}
	// The child is up when it has answered once; its start is not part of the row.
	if _, err := ask(); err != nil {
		return r, err
	}
	if w.started != nil {
		w.started(p)
	}
	started := time.Now()
	p.begin()
	n, again := 0, 0
	for n&1023 != 0 || time.Since(started) < d {
		k, err := w.send(c)
		if err != nil {
			return r, err
		}
		n += k
	}
	got, err := ask()
	for err == nil && w.resend != nil {
		c.ResolveOffers() // the child has tried all, so now all is heard of
		var k int
		if k, err = w.resend(c); k == 0 || err != nil {
			break
		}
		again += k
		got, err = ask()
	}
	if err != nil {
		return r, err
	}
	took := time.Since(started)
	c.Close()
	<-c.Done() // Resolved has heard of all
	cpu := p.end()
	if st := c.Stats(); w.resend == nil && got < uint64(n) { // what came back was closed
		again = int(st.Returned)
		got += st.Returned
	}
	if got != uint64(n) {
		return r, fmt.Errorf("sent %d, child got %d, %d came back", n, got, again)
	}
	return result{Unit: w.unit, Value: float64(n) / took.Seconds(), CPU: float64(cpu.Nanoseconds()) / float64(n), Back: again}, nil
}

// returns are the handles that came back.
type returns struct {
	claimed atomic.Int64
	mu      sync.Mutex
	hs      []*fdipc.Handle
}

func (r *returns) resolved(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
	if o == fdipc.Claimed {
		r.claimed.Add(1)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hs = append(r.hs, h)
}

func (r *returns) resend(c *fdipc.Conn) (n int, err error) {
	r.mu.Lock()
	hs := r.hs
	r.hs = nil
	r.mu.Unlock()
	for h := range slices.Chunk(hs, 16) {
		if err := c.Send(context.Background(), &fdipc.Frame{Kind: kindWork, Lane: fdipc.Data, Handles: h}); err != nil {
			return n, err
		}
		n += len(h)
	}
	return n, nil
}

func handles(batch int, claimed bool) func(time.Duration) (result, error) {
	return func(d time.Duration) (r result, err error) {
		src, err := dupTCP()
		if err != nil {
			return r, err
		}
		defer unix.Close(src)
		sent := int64(0)
		hs := make([]*fdipc.Handle, batch)
		w := flow{role: "handles", unit: "handles/s", send: func(c *fdipc.Conn) (int, error) {
			for i := range hs {
				hs[i] = fdipc.HandleFD(dup(src))
			}
			sent += int64(batch)
			return batch, c.Send(context.Background(), &fdipc.Frame{Kind: kindWork, Lane: fdipc.Data, Handles: hs})
		}}
		var back returns
		if claimed {
			w.resolved, w.resend = back.resolved, back.resend
		}
		r, err = drive(d, w)
		if n := back.claimed.Load(); err == nil && claimed && n != sent {
			err = fmt.Errorf("%d sent, %d reported claimed", sent, n)
		}
		return r, err
	}
}

func messages(size int) func(time.Duration) (result, error) {
	return func(d time.Duration) (result, error) {
		payload := make([]byte, size)
		return drive(d, flow{role: "messages", unit: "messages/s", send: func(c *fdipc.Conn) (int, error) {
			return 1, c.Send(context.Background(), &fdipc.Frame{Kind: kindWork, Lane: fdipc.Data, Payload: payload})
		}})
	}
}

// roundtrip measures from handler to handler; with ask, from a goroutine that waits for its answer.
func roundtrip(ask bool) func(time.Duration) (result, error) {
	return func(d time.Duration) (r result, err error) {
		var lat []time.Duration
		var at, end time.Time
		var p *process
		payload := make([]byte, 64)
		ping := make(chan struct{}, 1)
		done := make(chan struct{})
		first := true
		start := func() { at = time.Now(); end = at.Add(d); p.begin() }
		ready := make(chan struct{})
		c, p, err := spawn("echo", fdipc.Config{Handler: func(c *fdipc.Conn, f *fdipc.Frame) {
			if ask {
				ping <- struct{}{}
				return
			}
			<-ready
			u := time.Now()
			if first { // the child's start is not part of the row
				first = false
				start()
				u = at
			} else {
				lat = append(lat, u.Sub(at))
			}
			at = u
			if u.After(end) {
				close(done)
				return
			}
			_ = c.TrySend(&fdipc.Frame{Kind: kindWork, Payload: payload})
		}})
		if err != nil {
			return r, err
		}
		close(ready)
		wait := func(what <-chan struct{}) error {
			select {
			case <-what:
				return nil
			case <-c.Done():
				return c.Err()
			}
		}
		send := func() error { return c.Send(context.Background(), &fdipc.Frame{Kind: kindWork, Payload: payload}) }
		if err := send(); err != nil {
			return r, err
		}
		if ask {
			if err := wait(ping); err != nil {
				return r, err
			}
			start()
			for at.Before(end) {
				if err := send(); err != nil {
					return r, err
				}
				if err := wait(ping); err != nil {
					return r, err
				}
				u := time.Now()
				lat, at = append(lat, u.Sub(at)), u
			}
		} else if err := wait(done); err != nil {
			return r, err
		}
		c.Close()
		return latencies(lat, p.end()), nil
	}
}

func latencies(lat []time.Duration, cpu time.Duration) result {
	n, sum := len(lat), time.Duration(0)
	for _, l := range lat {
		sum += l
	}
	slices.Sort(lat)
	us := func(q float64) float64 { return float64(lat[int(float64(n-1)*q)].Nanoseconds()) / 1000 }
	return result{Unit: "roundtrips/s", Value: float64(n) / sum.Seconds(), CPU: float64(cpu.Nanoseconds()) / float64(n), P50: us(.5), P99: us(.99)}
}

func handleRows() []row {
	return []row{
		{"handles_oneway_b1", handles(1, false)},
		{"handles_oneway_b16", handles(16, false)},
		{"handles_claimed_b1", handles(1, true)},
		{"handles_claimed_b16", handles(16, true)},
		{"peer_go_handles_b1", peerGoHandles(1)},
		{"peer_go_handles_b16", peerGoHandles(16)},
		{"peer_c_handles_b1", inC("handles/s", "fds", "1")},
		{"peer_c_handles_b16", inC("handles/s", "fds", "16")},
	}
}

func messageRows() []row {
	return []row{
		{"messages_oneway_64", messages(64)},
		{"messages_oneway_1024", messages(1024)},
		{"peer_go_messages_64", peerGoStream(64)},
		{"peer_go_messages_1024", peerGoStream(1024)},
		{"peer_c_messages_64", inC("messages/s", "stream", "64")},
		{"peer_c_messages_1024", inC("messages/s", "stream", "1024")},
	}
}

func roundtripRows() []row {
	return []row{
		{"roundtrip_64", roundtrip(false)},
		{"roundtrip_64_ask", roundtrip(true)},
		{"peer_go_roundtrip_64", peerGoPingPong(64)},
		{"peer_c_roundtrip_64", inC("roundtrips/s", "pingpong", "64")},
	}
}

// inC runs the program in C.
func inC(unit string, args ...string) func(time.Duration) (result, error) {
	return func(d time.Duration) (r result, err error) {
		bin, err := buildC("peer")
		if err != nil {
			return r, err
		}
		out, err := exec.Command(bin, append(args, fmt.Sprint(d.Seconds()))...).Output()
		if err != nil {
			return r, err
		}
		r.Unit = unit
		_, err = fmt.Sscan(string(out), &r.Value, &r.CPU, &r.P50, &r.P99)
		return r, err
	}
}

// Variables that tell a child which small program it is, and its number.
const (
	peerVar = "YARDSTICK_PEER"
	peerID  = "YARDSTICK_PEER_ID"
)

func startPeer(what string, remote *os.File) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{remote}
	cmd.Env = append(os.Environ(), peerVar+"="+what)
	err = cmd.Start()
	remote.Close()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: cmd}
	p.begin()
	return p, nil
}

func peerGoHandles(batch int) func(time.Duration) (result, error) {
	return func(d time.Duration) (r result, err error) {
		src, err := dupTCP()
		if err != nil {
			return r, err
		}
		local, remote, err := fdipc.Socketpair()
		if err != nil {
			return r, err
		}
		p, err := startPeer("handles", remote)
		if err != nil {
			return r, err
		}
		start := time.Now()
		n, err := peers.PassHandles(local, src, batch, d)
		took := time.Since(start)
		local.Close()
		return result{Unit: "handles/s", Value: float64(n) / took.Seconds(), CPU: float64(p.end().Nanoseconds()) / float64(n)}, err
	}
}

func peerGoStream(size int) func(time.Duration) (result, error) {
	return func(d time.Duration) (r result, err error) {
		c, remote, err := peers.Pair()
		if err != nil {
			return r, err
		}
		defer c.Close()
		p, err := startPeer("stream", remote)
		if err != nil {
			return r, err
		}
		start := time.Now()
		n, err := peers.Stream(c, size, d)
		took := time.Since(start)
		return result{Unit: "messages/s", Value: float64(n) / took.Seconds(), CPU: float64(p.end().Nanoseconds()) / float64(n)}, err
	}
}

func peerGoPingPong(size int) func(time.Duration) (result, error) {
	return func(d time.Duration) (r result, err error) {
		c, remote, err := peers.Pair()
		if err != nil {
			return r, err
		}
		p, err := startPeer("pingpong", remote)
		if err != nil {
			return r, err
		}
		lat, err := peers.PingPong(c, size, d)
		c.Close()
		cpu := p.end()
		if err == nil && len(lat) == 0 {
			err = errors.New("nothing measured")
		}
		if err != nil {
			return r, err
		}
		return latencies(lat, cpu), nil
	}
}
