package trunk_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coppice-go/coppice/actors/hosts/hoststest"
	"github.com/coppice-go/coppice/actors/hosts/internal/trunk"
	"github.com/coppice-go/coppice/fdipc"
)

// TestFrames: frames of each size arrive whole and in the order of their flow, by both ways into a
// sink, over a network that is slow and hands over few bytes at a time.
func TestFrames(t *testing.T) {
	for _, row := range []struct {
		name string
		full func(n int) bool
	}{
		{"room", func(int) bool { return false }},
		{"full", func(int) bool { return true }},
		{"now and then", func(n int) bool { return n%5 < 2 }},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n := hoststest.NewNet(3)
				n.Delay(10 * time.Millisecond)
				n.Chop(80_000)
				a, b := two(t, n)
				tries := 0
				sink := &collector{full: func() bool { tries++; return row.full(tries) }}
				l, _, ended := open(t, a, b, sink)
				sizes := []int{8, 100, 0, 32 << 10, 32<<10 + 1, 65 << 10, 200_000, 1 << 20}
				var want [2][]*fdipc.Frame
				for i := range 64 {
					which := fdipc.Lane(i % 2)
					f := numbered(which, i, sizes[i/2%len(sizes)])
					want[which] = append(want[which], f)
					if err := l.Send(t.Context(), f); err != nil {
						t.Fatal(err)
					}
				}
				l.End([]byte("done"))
				if e := <-ended; e.Err != nil || string(e.Reason) != "done" {
					t.Errorf("end: %+v", e)
				}
				var got [2][]*fdipc.Frame
				for _, f := range sink.frames {
					got[f.Lane] = append(got[f.Lane], &f)
				}
				for which := range want {
					if !reflect.DeepEqual(got[which], want[which]) {
						t.Errorf("flow %d: %d frames, or others than the %d that were sent", which, len(got[which]), len(want[which]))
					}
				}
				if err := l.Send(t.Context(), numbered(0, 1, 8)); !errors.Is(err, trunk.ErrEnded) {
					t.Errorf("send after the end: %v", err)
				}
			})
		})
	}
}

// TestSlowSink: a sink that takes nothing stops the senders of its own lane, after a window; what
// it holds is bounded; another lane goes on; what was sent arrives when the sink goes on.
func TestSlowSink(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := two(t, hoststest.NewNet(1))
		slow := &collector{full: func() bool { return true }, gate: make(chan struct{})}
		l, other, ended := open(t, a, b, slow)
		sent := 0
		senders := make(chan error, 1)
		go func() {
			for ; sent < 300; sent++ {
				if err := l.Send(t.Context(), numbered(fdipc.Data, sent, 1000)); err != nil {
					senders <- err
					return
				}
			}
			senders <- nil
		}()
		synctest.Wait()
		if sent*1064 > 64<<10 || (sent+1)*1064 < 64<<10 {
			t.Errorf("%d frames of 1,064 bytes were sent into a window of 64 KiB", sent)
		}
		if err := l.TrySend(numbered(fdipc.Data, 0, 1000)); !errors.Is(err, fdipc.ErrFull) {
			t.Errorf("TrySend: %v", err)
		}
		if held := other.Trunk().Stats().Held; held > 64<<10 {
			t.Errorf("%d bytes are held", held)
		}

		quick := &collector{}
		l2, _, _ := open(t, a, b, quick)
		for i := range 5000 {
			if err := l2.Send(t.Context(), numbered(fdipc.Data, i, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Send(t.Context(), numbered(fdipc.Control, 1, 8)); err != nil {
			t.Errorf("control beside full data: %v", err)
		}
		synctest.Wait()
		if quick.count() != 5000 {
			t.Errorf("the other lane got %d frames of 5000", quick.count())
		}

		close(slow.gate)
		if err := <-senders; err != nil {
			t.Error(err)
		}
		l.End(nil)
		if e := <-ended; e.Err != nil {
			t.Error(e)
		}
		n := 0
		for _, f := range slow.frames {
			if f.Lane == fdipc.Data {
				if f.Target != uint64(n)<<8 {
					t.Fatalf("frame %d is number %d", n, f.Target>>8)
				}
				n++
			}
		}
		if n != 300 {
			t.Errorf("%d frames of 300", n)
		}
	})
}

// holder is a sink that takes all, and holds it until the gate opens.
type holder struct {
	*collector
	gate chan struct{}
}

func (h holder) Flush(ctx context.Context, _ fdipc.Lane) bool {
	select {
	case <-h.gate:
		return true
	case <-ctx.Done():
		return false
	}
}

// TestHeldBySinks: long frames count until their sinks hold them no more, so that a peer can have
// 128 MiB of them held, in whatever lanes; then the others come too.
func TestHeldBySinks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := two(t, hoststest.NewNet(1))
		gate := make(chan struct{})
		const lanes, long = 6, 40 << 20
		var sent atomic.Int32
		for i := range lanes {
			l, _, _ := open(t, a, b, holder{new(collector), gate})
			go func() {
				if l.Send(t.Context(), numbered(fdipc.Data, i, long)) == nil {
					sent.Add(1)
				}
			}()
		}
		synctest.Wait()
		if held := b.Trunk("a").Stats().Held; held != 3*long || sent.Load() != 3 {
			t.Errorf("%d of %d frames were sent, %d MiB are held", sent.Load(), lanes, held>>20)
		}
		close(gate)
		synctest.Wait()
		if held := b.Trunk("a").Stats().Held; held != 0 || sent.Load() != lanes {
			t.Errorf("then %d of %d frames were sent, %d MiB are held", sent.Load(), lanes, held>>20)
		}
	})
}

// TestUntaken: the end of a lane waits a second for a sink that takes nothing.
func TestUntaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := two(t, hoststest.NewNet(1))
		stuck := &collector{full: func() bool { return true }, gate: make(chan struct{})}
		l, _, ended := open(t, a, b, stuck)
		if err := l.Send(t.Context(), numbered(fdipc.Data, 1, 1000)); err != nil {
			t.Fatal(err)
		}
		l.End([]byte("done"))
		begun := time.Now()
		if e := <-ended; e.Err != nil || string(e.Reason) != "done" || time.Since(begun) != time.Second {
			t.Errorf("after %v: %+v", time.Since(begun), e)
		}
	})
}

// TestGivenUp: a frame whose context ends before all its pieces are sent does not arrive, and the
// next one does.
func TestGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := two(t, hoststest.NewNet(1))
		sink := &collector{full: func() bool { return true }, gate: make(chan struct{})}
		l, _, ended := open(t, a, b, sink)
		big := numbered(fdipc.Data, 1, 60_000) // its share is taken, and its window, while it waits for the sink
		for _, f := range []*fdipc.Frame{numbered(fdipc.Data, 0, 8), big, big} {
			if err := l.Send(t.Context(), f); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		sent := make(chan error)
		go func() { sent <- l.Send(ctx, numbered(fdipc.Data, 2, 3<<20)) }()
		synctest.Wait()
		cancel()
		if err := <-sent; !errors.Is(err, context.Canceled) {
			t.Errorf("send: %v", err)
		}
		close(sink.gate)
		if err := l.Send(t.Context(), numbered(fdipc.Data, 3, 3<<20)); err != nil {
			t.Fatal(err)
		}
		l.End(nil)
		if e := <-ended; e.Err != nil {
			t.Error(e)
		}
		var got []uint64
		for _, f := range sink.frames {
			got = append(got, f.Target>>8)
		}
		if !slices.Equal(got, []uint64{0, 1, 1, 3}) {
			t.Errorf("frames %d", got)
		}
	})
}

// TestSinkFails: a sink that fails ends what comes for it, and its owner hears of it; the peer
// hears of it when the owner ends the lane.
func TestSinkFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := two(t, hoststest.NewNet(1))
		local, remote := fdipc.Pipe(fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) {}}, fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) {}})
		remote.Close()
		<-local.Done()
		l, other, ended := open(t, a, b, local)
		ours := make(chan *trunk.LaneEnd, 1)
		l.Join(&collector{}, func(e *trunk.LaneEnd) { ours <- e })
		if err := l.Send(t.Context(), numbered(fdipc.Data, 1, 8)); err != nil {
			t.Fatal(err)
		}
		if e := <-ended; e.Err == nil || errors.Is(e, trunk.ErrLost) {
			t.Errorf("end: %v", e)
		}
		other.End([]byte("signal: killed"))
		if e := <-ours; e.Err != nil || string(e.Reason) != "signal: killed" {
			t.Errorf("end at the peer: %+v", e)
		}
	})
}

// TestSpliced: two channels of package fdipc are one over a trunk, in both directions.
func TestSpliced(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := two(t, hoststest.NewNet(1))
		l, reply, err := a.Trunk("b").Open(t.Context(), []byte("hello"))
		if err != nil || string(reply) != "re: hello" {
			t.Fatal(err)
		}
		var workers []*fdipc.Conn
		got := []chan fdipc.Frame{make(chan fdipc.Frame, 1000), make(chan fdipc.Frame, 1000)}
		for i, lane := range []*trunk.Lane{l, <-b.opened} {
			worker, gateway := fdipc.Pipe(
				fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { got[i] <- fdipc.Frame{Target: f.Target} }},
				fdipc.Config{
					Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { lane.Send(context.Background(), f) }, //nolint:errcheck // the test sees what is missing
					Closed:  func(*fdipc.Conn, error) { lane.End([]byte("the worker is gone")) },
				})
			lane.Join(gateway, func(*trunk.LaneEnd) { gateway.Close() })
			workers = append(workers, worker)
		}
		for i := range 300 {
			for _, w := range workers {
				if err := w.Send(t.Context(), numbered(fdipc.Data, i, i*50)); err != nil {
					t.Fatal(err)
				}
			}
		}
		for i := range 300 {
			for _, ch := range got {
				if f := <-ch; f.Target != uint64(i)<<8 {
					t.Fatalf("frame %d is number %d", i, f.Target>>8)
				}
			}
		}
		workers[0].Close()
		<-workers[1].Done()
	})
}

// TestRefusals: what a lane does not take.
func TestRefusals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := hoststest.NewNet(1)
		a, b := start(t, n, "a", nil), start(t, n, "b", func(c *trunk.Config) { c.Open = nil })
		a.SetPeers(peers("b"))
		b.SetPeers(peers("a"))
		<-a.up
		<-b.up
		if _, _, err := a.Trunk("b").Open(t.Context(), nil); !errors.Is(err, trunk.ErrRefused) || !errors.Is(err, trunk.ErrEnded) {
			t.Errorf("nobody takes lanes: %v", err)
		}
		if _, err := a.Trunk("b").OpenStream(t.Context(), "x"); !errors.Is(err, trunk.ErrRefused) {
			t.Errorf("nobody takes streams: %v", err)
		}
		if _, _, err := a.Trunk("b").Open(t.Context(), make([]byte, 4<<10+1)); !errors.Is(err, fdipc.ErrTooBig) {
			t.Errorf("long info: %v", err)
		}
		l, _, _ := open(t, b, a, &collector{})
		for what, f := range map[string]*fdipc.Frame{
			"a transport's kind": {Kind: 1},
			"a flow of none":     {Kind: 0x30, Lane: 2},
			"a handle":           {Kind: 0x30, Handles: []*fdipc.Handle{nil}},
		} {
			if err := l.Send(t.Context(), f); !errors.Is(err, fdipc.ErrKind) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := l.Send(t.Context(), &fdipc.Frame{Kind: 0x30, Payload: make([]byte, 4<<20+1)}); !errors.Is(err, fdipc.ErrTooBig) {
			t.Errorf("long control: %v", err)
		}
		if err := l.TrySend(&fdipc.Frame{Kind: 0x30, Payload: make([]byte, 32<<10+1)}); !errors.Is(err, fdipc.ErrTooBig) {
			t.Errorf("TrySend in pieces: %v", err)
		}
	})
}

// TestStream: bytes pass both ways, unread ones stop the writer, and Close ends both ends after
// what was written; a lost trunk ends them too.
func TestStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := hoststest.NewNet(1)
		served := make(chan net.Conn, 1)
		a, b := start(t, n, "a", nil), start(t, n, "b", func(c *trunk.Config) {
			c.Stream = func(_ *trunk.Trunk, service string, c net.Conn) {
				if service == "raft" {
					served <- c
				}
			}
		})
		a.SetPeers(peers("b"))
		b.SetPeers(peers("a"))
		<-a.up
		<-b.up
		connect := func() (net.Conn, net.Conn) {
			c, err := a.Trunk("b").OpenStream(t.Context(), "raft")
			if err != nil {
				t.Fatal(err)
			}
			return c, <-served
		}
		c, s := connect()
		sent := bytes.Repeat([]byte("0123456789"), 300_000)
		go func() {
			c.Write(sent) //nolint:errcheck // the reader sees what is missing
			c.Close()
		}()
		synctest.Wait()
		if held := b.Trunk("a").Stats().Held; held > 1<<20 {
			t.Errorf("%d bytes are held", held)
		}
		if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		c, s = connect()
		go s.Write([]byte("back")) //nolint:errcheck // likewise
		buf := make([]byte, 4)
		if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "back" {
			t.Errorf("%q, %v", buf, err)
		}
		n.Reset("a", "b")
		for _, c := range []net.Conn{c, s} {
			if _, err := c.Read(buf); !errors.Is(err, io.EOF) {
				t.Errorf("read after the loss: %v", err)
			}
			c.Close()
		}
	})
}

// TestOpenOnBusyTrunk: a trunk whose network is slower than what is to be sent is no peer that
// reads nothing: it opens further lanes.
func TestOpenOnBusyTrunk(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := hoststest.NewNet(1)
		a, b := two(t, n)
		n.Delay(300 * time.Millisecond)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		for range 4 {
			l, _, _ := open(t, a, b, &collector{})
			go func() { // ends with ctx or the trunk
				for k := 0; l.Send(ctx, numbered(fdipc.Data, k, 4<<10)) == nil; k++ {
				}
			}()
		}
		<-time.After(5 * time.Second) // of the bubble
		if queued := a.Trunk("b").Stats().Queued; queued < 1<<20 {
			t.Errorf("%d bytes are queued, too few to show anything", queued)
		}
		l, _, _ := open(t, b, a, &collector{})
		l.End(nil)
		select {
		case d := <-a.down:
			t.Error("trunk lost:", d.err)
		default:
		}
	})
}
