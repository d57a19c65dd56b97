package fdipc_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

// suspend suspends c, within the patience of a test.
func suspend(t testing.TB, c *fdipc.Conn) (state []byte, fds []int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	state, fds, err := c.Suspend(ctx)
	if err != nil {
		t.Fatalf("%v\n%s", err, stacks())
	}
	return state, fds
}

// image makes of a suspended Conn what an exec would make of it, in another image: it is gone, and
// its descriptors and its state are there.
func image(t testing.TB, c *fdipc.Conn) (state []byte, fds []int) {
	t.Helper()
	state, fds = suspend(t, c)
	fds = slices.Clone(fds)
	for i, fd := range fds {
		d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds[i] = d
	}
	fdipc.Vanish(c)
	return state, fds
}

// replace is an image, and the Conn that it goes on as; not yet resumed.
func replace(t testing.TB, c *fdipc.Conn, cfg fdipc.Config) *fdipc.Conn {
	t.Helper()
	state, fds := image(t, c)
	n, err := fdipc.Restore(state, fds, cfg)
	if err != nil {
		t.Fatal(err)
	}
	again, _ := suspend(t, n)
	if !bytes.Equal(state, again) {
		t.Errorf("the restored Conn has another state:\n%x\n%x", state, again)
	}
	return n
}

// joinSuspendable is joinSocket with two Conns that can be suspended.
func joinSuspendable(t testing.TB, a, b fdipc.Config) (*fdipc.Conn, *fdipc.Conn) {
	a.Suspendable, b.Suspendable = true, true
	return joinSocket(t, a, b)
}

// modelSide is one process of the model: its Conn, which changes, and what it has sent and got.
type modelSide struct {
	t    *testing.T
	name string
	cfg  fdipc.Config
	some chan struct{} // a frame came, for each

	mu       sync.Mutex
	conn     *fdipc.Conn
	ctx      context.Context // ends with conn
	vanish   context.CancelFunc
	next     [2]uint64      // frame to come, by lane
	got      map[string]int // handles that were claimed here, by name
	back     map[string]int // handles sent that came back
	claimed  map[string]int // handles sent that are claimed, by the word of the table
	handles  int            // sent
	resolved chan struct{}  // a handle was
	rnd      *rand.Rand
}

func newModelSide(t *testing.T, name string, rnd *rand.Rand, claimTimeout time.Duration) *modelSide {
	s := &modelSide{
		t: t, name: name, some: make(chan struct{}, 1<<16), resolved: make(chan struct{}, 1), rnd: rand.New(rand.NewPCG(rnd.Uint64(), 0)),
		got: make(map[string]int), back: make(map[string]int), claimed: make(map[string]int),
	}
	s.cfg = fdipc.Config{
		Credits: 128, QueueBytes: 256 << 10, ClaimTimeout: claimTimeout, Handler: s.handle, Resolved: s.settle,
		Closed: func(c *fdipc.Conn, err error) {
			if !errors.Is(err, fdipc.ErrClosed) && !errors.Is(err, io.EOF) {
				t.Errorf("%s: %v", name, err)
			}
		},
	}
	return s
}

func (s *modelSide) use(c *fdipc.Conn) {
	s.mu.Lock()
	s.conn = c
	s.ctx, s.vanish = context.WithCancel(context.Background())
	s.mu.Unlock()
}

func (s *modelSide) current() (*fdipc.Conn, context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn, s.ctx
}

var modelBytes = func() []byte {
	b := make([]byte, 4093)
	for i := range b {
		b[i] = byte(i ^ i>>7)
	}
	return b
}()

// modelPayload is the payload of frame n: its number, some bytes, and their sum.
func modelPayload(n uint64, size int) []byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, 12+size), n)
	for len(b) < 8+size {
		b = append(b, modelBytes[:min(len(modelBytes), 8+size-len(b))]...)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

func (s *modelSide) handle(_ *fdipc.Conn, f *fdipc.Frame) {
	b := f.Payload
	body := b[:len(b)-4]
	s.mu.Lock()
	want := s.next[f.Lane]
	s.next[f.Lane]++
	toss := s.rnd.IntN(8)
	s.mu.Unlock()
	if n := binary.LittleEndian.Uint64(b); n != want || crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(b[len(b)-4:]) {
		s.t.Errorf("%s: frame %d of %v, want %d", s.name, n, f.Lane, want)
	}
	take := func(h *fdipc.Handle) {
		name := h.Name()
		r, err := h.File()
		if errors.Is(err, fdipc.ErrRevoked) {
			return
		}
		if err != nil {
			s.t.Error(err)
			return
		}
		defer r.Close()
		id, err := io.ReadAll(r)
		if err != nil || string(id) != name {
			s.t.Errorf("%s: handle %s is %q, %v", s.name, name, id, err)
		}
		s.mu.Lock()
		s.got[name]++
		s.mu.Unlock()
	}
	for i, h := range f.Handles {
		switch (i + toss) % 8 {
		case 0:
			h.Refuse(20)
		case 1:
			go take(h) // Suspend waits for it
		default:
			take(h)
		}
	}
	signal(s.some)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (s *modelSide) settle(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
	name := h.Name()
	if o != fdipc.Claimed {
		if h.FD() < 0 {
			s.t.Errorf("%s: %v without a descriptor", name, o)
		}
		if id := readHandle(s.t, h); id != name {
			s.t.Errorf("%s: handle %s is back as %q", s.name, name, id)
		}
	}
	s.mu.Lock()
	if o == fdipc.Claimed {
		s.claimed[name]++
	} else {
		s.back[name]++
	}
	s.mu.Unlock()
	signal(s.resolved)
}

// send sends n frames on a lane, over whatever Conn there is.
func (s *modelSide) send(l fdipc.Lane, n int, rnd *rand.Rand) {
	for i := range n {
		size := rnd.IntN(300)
		switch r := rnd.IntN(100); {
		case r < 1:
			size = rnd.IntN(1 << 20)
		case r < 10:
			size = rnd.IntN(100 << 10)
		}
		f := &fdipc.Frame{Kind: kind, Lane: l, Payload: modelPayload(uint64(i), size)}
		if rnd.IntN(8) == 0 {
			for j := range 1 + rnd.IntN(3)*rnd.IntN(30) {
				id := fmt.Sprintf("%s/%v/%d/%d", s.name, l, i, j)
				f.Handles = append(f.Handles, pipeHandle(s.t, id).Named(id))
			}
		}
		for {
			c, ctx := s.current()
			err := c.Send(ctx, f)
			if err == nil {
				break
			}
			if ctx.Err() == nil {
				s.t.Errorf("%s: %v", s.name, err)
				return
			}
		}
		s.mu.Lock()
		s.handles += len(f.Handles)
		s.mu.Unlock()
	}
}

// Two Conns with random traffic in both directions: small and large frames, handles that are
// claimed, refused, and too late. Either Conn is suspended at random moments and resumed, or
// replaced. Each frame comes once, whole, and in the order of its lane; each handle is claimed at
// one side, or back at the other.
func TestSuspendModel(t *testing.T) {
	for _, timeout := range []time.Duration{-1, 5 * time.Millisecond} {
		t.Run("ClaimTimeout="+timeout.String(), func(t *testing.T) {
			defer leaks(t)()
			t.Run("", func(t *testing.T) { suspendModel(t, soak(300, 30000), timeout) })
		})
	}
}

func suspendModel(t *testing.T, frames int, claimTimeout time.Duration) {
	rnd := seeds(t)
	a, b := newModelSide(t, "a", rnd, claimTimeout), newModelSide(t, "b", rnd, claimTimeout)
	ca, cb := joinSuspendable(t, a.cfg, b.cfg)
	a.use(ca)
	b.use(cb)
	defer func() {
		for _, s := range []*modelSide{a, b} {
			s.conn.Close()
			wait(t, "end", s.conn.Done())
		}
	}()
	var senders sync.WaitGroup
	for _, s := range []*modelSide{a, b} {
		for l := range fdipc.Lane(2) {
			r := rand.New(rand.NewPCG(rnd.Uint64(), 1))
			senders.Go(func() { s.send(l, frames, r) })
		}
	}
	over := make(chan struct{})
	go func() { // ends when the senders have
		senders.Wait()
		close(over)
	}()
	replaced, resumed, given := 0, 0, 0
	for going := true; going && !t.Failed(); {
		for range rnd.IntN(40) {
			select {
			case <-a.some:
			case <-b.some:
			case <-over:
				going = false
			}
		}
		s := []*modelSide{a, b}[rnd.IntN(2)]
		switch rnd.IntN(6) {
		case 0:
			suspend(t, s.conn)
			s.conn.Resume()
			resumed++
		case 1:
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			if _, _, err := s.conn.Suspend(ctx); err == nil {
				s.conn.Resume()
			} else if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			given++
		default:
			old, vanish := s.conn, s.vanish
			suspend(t, old)
			vanish()
			n := replace(t, old, s.cfg)
			s.use(n)
			n.Resume()
			replaced++
		}
	}
	wait(t, "end of the senders", over)
	for _, s := range []*modelSide{a, b} {
		peer := a
		if s == a {
			peer = b
		}
		till(t, s.name+"'s frames", s.some, func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.next == [2]uint64{uint64(frames), uint64(frames)}
		})
		till(t, s.name+"'s outcomes", s.resolved, func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.back)+len(s.claimed) == s.handles
		})
		till(t, s.name+"'s handles at "+peer.name, nil, func() bool { // noted there a moment after the claim
			peer.mu.Lock()
			defer peer.mu.Unlock()
			return len(peer.got) >= len(s.claimed)
		})
		for name, n := range s.back {
			if n != 1 || peer.got[name] != 0 || s.claimed[name] != 0 {
				t.Errorf("%s is back %d times, and was claimed", name, n)
			}
		}
		for name, n := range s.claimed {
			if n != 1 || peer.got[name] != 1 {
				t.Errorf("%s is claimed %d times, here %d", name, n, peer.got[name])
			}
		}
		st := s.conn.Stats()
		if st.Offered != uint64(s.handles) || st.Offered != st.Claimed+st.Refused+st.Returned || st.Corrupt != 0 {
			t.Errorf("%s: %d handles, %+v", s.name, s.handles, st)
		}
		t.Logf("%s: %d handles, %d back, %+v", s.name, s.handles, len(s.back), st)
	}
	t.Logf("%d replaced, %d resumed, %d given up", replaced, resumed, given)
}

// till waits until ok, asking again after each signal.
func till(t testing.TB, what string, c <-chan struct{}, ok func() bool) {
	t.Helper()
	limit := time.After(patience)
	for !ok() {
		select {
		case <-c:
		case <-time.After(time.Millisecond):
		case <-limit:
			t.Fatalf("still no %s\n%s", what, stacks())
		}
	}
}

// A peer that a signal has stopped holds no suspension up, though its lane is full and a writer
// waits; nor is a frame lost that is on its way.
func TestSuspendStoppedPeer(t *testing.T) {
	defer leaks(t)()
	t.Run("", func(t *testing.T) {
		answer := make(chan string, 1)
		cfg := fdipc.Config{Suspendable: true, Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { answer <- string(f.Payload) }}
		ch := spawn(t, cfg, map[string]string{"ROLE": "count"})
		c := ch.Conn
		ready := &fdipc.Frame{Kind: kindCount, Lane: fdipc.Data, Payload: []byte("0")}
		if err := c.Send(context.Background(), ready); err != nil {
			t.Fatal(err)
		}
		if got := wait(t, "answer", answer); got != "0 0" {
			t.Fatal(got)
		}
		_ = ch.cmd.Process.Signal(unix.SIGSTOP)
		n := 0
		for ; ; n++ {
			f := &fdipc.Frame{Kind: kind, Lane: fdipc.Data, Payload: modelPayload(uint64(n), 3000)}
			if err := c.TrySend(f); errors.Is(err, fdipc.ErrFull) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			c = replace(t, c, cfg)
			c.Resume()
		}
		_ = ch.cmd.Process.Signal(unix.SIGCONT)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := c.Send(ctx, &fdipc.Frame{Kind: kindCount, Lane: fdipc.Data}); err != nil {
			t.Fatal(err)
		}
		if got, want := wait(t, "answer", answer), fmt.Sprintf("%d 0", n); got != want {
			t.Errorf("frames and errors there are %s, want %s", got, want)
		}
		c.Close()
		wait(t, "end", c.Done())
	})
}

// count counts the frames of the model that come in order, and those that do not.
func count(f *os.File, _ map[string]string) {
	good, bad := 0, 0
	c, err := fdipc.New(f, fdipc.Config{Handler: func(c *fdipc.Conn, f *fdipc.Frame) {
		if f.Kind == kindCount {
			_ = c.TrySend(&fdipc.Frame{Kind: kindCount, Payload: fmt.Appendf(nil, "%d %d", good, bad)})
			return
		}
		if bytes.Equal(f.Payload, modelPayload(uint64(good), len(f.Payload)-12)) {
			good++
		} else {
			bad++
		}
	}})
	if err != nil {
		panic(err)
	}
	<-c.Done()
}

// A frame of 16 MB, in the soak 100, of which a part is in the memory of the receiver, a part in
// the kernel and the rest in the memory of the sender comes whole though both are replaced.
func TestSuspendHalfFrame(t *testing.T) {
	defer leaks(t)()
	t.Run("", func(t *testing.T) {
		size := soak(16<<20, 100<<20)
		type end struct {
			n   int
			sum uint32
		}
		got := make(chan end, 1)
		ca := fdipc.Config{MaxFrame: 128 << 20, Handler: ignore}
		cb := ca
		cb.Handler = func(_ *fdipc.Conn, f *fdipc.Frame) { got <- end{len(f.Payload), crc32.ChecksumIEEE(f.Payload)} }
		a, b := joinSuspendable(t, ca, cb)
		payload := make([]byte, size)
		for i := range payload {
			payload[i] = byte(i ^ i>>8 ^ i>>16)
		}
		// Before the handshake is over nothing is sent, so that b is never later than this.
		if err := a.Send(context.Background(), &fdipc.Frame{Kind: kind, Lane: fdipc.Data, Payload: payload}); err != nil {
			t.Fatal(err)
		}
		till(t, "part of the frame", nil, func() bool { return b.Stats().BytesReceived > 2<<20 })
		stateB, fdsB := image(t, b) // so that a cannot get on
		stateA, fdsA := image(t, a)
		for _, s := range [][]byte{stateA, stateB} {
			if len(s) < 1<<20 {
				t.Errorf("a state has %d bytes: no part of the frame is in it", len(s))
			}
		}
		t.Logf("of %d bytes %d are with the sender, %d with the receiver", size, len(stateA), len(stateB))
		a, err := fdipc.Restore(stateA, fdsA, ca)
		if err != nil {
			t.Fatal(err)
		}
		if b, err = fdipc.Restore(stateB, fdsB, cb); err != nil {
			t.Fatal(err)
		}
		b.Resume()
		a.Resume()
		if e := wait(t, "frame", got); e != (end{size, crc32.ChecksumIEEE(payload)}) {
			t.Errorf("%+v came", e)
		}
		for _, c := range []*fdipc.Conn{a, b} {
			c.Close()
			wait(t, "end", c.Done())
		}
	})
}

// 1,000 offers that are live when their sender is replaced are claimed, refused and returned in the
// next image.
func TestSuspendLiveOffers(t *testing.T) {
	defer leaks(t)()
	t.Run("", func(t *testing.T) {
		const n = 1000
		held := make(chan *fdipc.Handle, n)
		a := new(side)
		ca := a.config(nil)
		ca.Credits, ca.ClaimTimeout = 1024, -1
		cb := new(side).config(func(_ *fdipc.Conn, f *fdipc.Frame) {
			for _, h := range f.Handles {
				held <- h
			}
		})
		cb.Credits = 1024
		c, b := joinSuspendable(t, ca, cb)
		for i := range n {
			r, err := os.Open("/dev/null")
			if err != nil {
				t.Fatal(err)
			}
			h, err := fdipc.HandleOf(r)
			if err != nil {
				t.Fatal(err)
			}
			f := &fdipc.Frame{Kind: kind, Lane: fdipc.Lane(i % 2), Handles: []*fdipc.Handle{h.Named(strconv.Itoa(i))}}
			if err := c.Send(context.Background(), f); err != nil {
				t.Fatal(err)
			}
		}
		var hs []*fdipc.Handle
		for range n {
			hs = append(hs, wait(t, "handle", held))
		}
		state, fds := image(t, c)
		for i, h := range hs[:n/2] { // while there is no sender
			finish(t, h, i)
		}
		c, err := fdipc.Restore(state, fds, ca)
		if err != nil {
			t.Fatal(err)
		}
		if left := c.Credit(); left != 0 {
			t.Errorf("%d credits while suspended", left)
		}
		c.Resume()
		for i, h := range hs[n/2 : n-n/4] {
			finish(t, h, i)
		}
		sum := make(map[fdipc.Outcome]int)
		for range n - n/4 {
			o := wait(t, "outcome", a.outcomes)
			sum[o.o]++
			if o.o == fdipc.Refused && o.h.Reason() != 20 {
				t.Errorf("reason %d", o.h.Reason())
			}
			o.h.Close()
		}
		b.Close()
		for range n / 4 {
			o := wait(t, "outcome", a.outcomes)
			sum[o.o]++
			o.h.Close()
		}
		if sum[fdipc.Claimed] != 375 || sum[fdipc.Refused] != 375 || sum[fdipc.Returned] != 250 {
			t.Errorf("outcomes %v", sum)
		}
		if err := wait(t, "end", a.closed); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		wait(t, "end", b.Done())
		for _, h := range hs {
			h.Close()
		}
	})
}

// finish claims or refuses h.
func finish(t *testing.T, h *fdipc.Handle, i int) {
	if i%2 == 0 {
		h.Refuse(20)
		return
	}
	if err := h.Claim(); err != nil {
		t.Error(err)
	}
	h.Close()
}

// What the peer said last is handled in the next image, and so is its end, whether it said goodbye
// or has died; a Conn whose peer has gone already is not suspended, and has handled all.
func TestSuspendHalfClosed(t *testing.T) {
	rows := []struct {
		name string
		end  func(t *testing.T, b *side)
		want error
	}{
		{"Goodbye", func(_ *testing.T, b *side) { b.Close() }, io.EOF},
		{"Lost", func(t *testing.T, b *side) { image(t, b.Conn) }, fdipc.ErrPeerLost},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			defer leaks(t)()
			t.Run("", func(t *testing.T) {
				got := make(chan string, 16)
				a, b := new(side), new(side)
				ca := a.config(func(_ *fdipc.Conn, f *fdipc.Frame) { got <- string(f.Payload) })
				a.Conn, b.Conn = joinSuspendable(t, ca, b.config(nil))
				b.send(t, &fdipc.Frame{Kind: kind, Payload: []byte("first")})
				if s := wait(t, "frame", got); s != "first" {
					t.Fatal(s)
				}
				state, fds := image(t, a.Conn)
				before := b.Stats().PacketsSent
				for _, l := range []fdipc.Lane{fdipc.Data, fdipc.Control} {
					b.send(t, &fdipc.Frame{Kind: kind, Lane: l, Payload: []byte(l.String())})
				}
				till(t, "packet of each lane", nil, func() bool { return b.Stats().PacketsSent >= before+2 }) // what is queued dies with b
				if row.want == io.EOF {
					b.Close()
					wait(t, "end", b.Done())
				} else {
					_, left := image(t, b.Conn)
					for _, fd := range left {
						unix.Close(fd)
					}
				}
				c, err := fdipc.Restore(state, fds, ca)
				if err != nil {
					t.Fatal(err)
				}
				c.Resume()
				if s := []string{wait(t, "frame", got), wait(t, "frame", got)}; !slices.Contains(s, "control") || !slices.Contains(s, "data") {
					t.Errorf("%q came", s)
				}
				if err := wait(t, "end", a.closed); !errors.Is(err, row.want) {
					t.Errorf("the end is %v, want %v", err, row.want)
				}
				if _, _, err := c.Suspend(context.Background()); !errors.Is(err, row.want) {
					t.Errorf("a Conn that has ended: %v, want %v", err, row.want)
				}
			})
		})
	}
}

// A Conn that is resumed goes on as if nothing had been. While it is suspended nothing is sent,
// handled or told, and what would end it waits.
func TestResume(t *testing.T) {
	defer leaks(t)()
	t.Run("", func(t *testing.T) {
		got := make(chan uint64, 16)
		a, b := new(side), new(side)
		ca := a.config(func(_ *fdipc.Conn, f *fdipc.Frame) { got <- f.Target })
		a.Conn, b.Conn = joinSuspendable(t, ca, b.config(func(_ *fdipc.Conn, f *fdipc.Frame) { got <- f.Target; f.Refuse(0) }))
		a.send(t, &fdipc.Frame{Kind: kind, Target: 1})
		if n := wait(t, "frame", got); n != 1 {
			t.Fatal(n)
		}
		one, fds := suspend(t, a.Conn)
		two, _ := suspend(t, a.Conn)
		if !bytes.Equal(one, two) || len(fds) != 5 {
			t.Errorf("%d descriptors, and the state changes:\n%x\n%x", len(fds), one, two)
		}
		if err := a.TrySend(&fdipc.Frame{Kind: kind}); !errors.Is(err, fdipc.ErrSuspended) {
			t.Errorf("TrySend: %v", err)
		}
		h := pipeHandle(t, "x")
		if err := a.TrySend(&fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h}}); !errors.Is(err, fdipc.ErrSuspended) {
			t.Errorf("TrySend: %v", err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := a.Send(ctx, &fdipc.Frame{Kind: kind}); !errors.Is(err, context.Canceled) {
			t.Errorf("Send: %v", err)
		}
		sent := make(chan error, 1)
		go func() {
			sent <- a.Send(context.Background(), &fdipc.Frame{Kind: kind, Target: 2, Handles: []*fdipc.Handle{h}})
		}()
		b.send(t, &fdipc.Frame{Kind: kind, Lane: fdipc.Data, Target: 3})
		again, _ := suspend(t, a.Conn)
		if !bytes.Equal(one, again) || len(got) != 0 {
			t.Errorf("the state has changed, or a frame was handled:\n%x\n%x", one, again)
		}
		a.Resume()
		if err := wait(t, "Send", sent); err != nil {
			t.Error(err)
		}
		if s := wait(t, "frame", got) + wait(t, "frame", got); s != 5 {
			t.Errorf("the sum of the frames is %d", s)
		}
		if o := wait(t, "outcome", a.outcomes); o.o != fdipc.Refused || readHandle(t, o.h) != "x" {
			t.Errorf("%v", o.o)
		}
		suspend(t, a.Conn)
		a.Close()
		select {
		case <-a.Done():
			t.Error("a suspended Conn has ended")
		default:
		}
		a.Resume()
		if err := wait(t, "end", a.closed); !errors.Is(err, fdipc.ErrClosed) {
			t.Error(err)
		}
		b.Close()
		wait(t, "end", b.Done())
	})
}

// Suspend gives up with its context: while a Handler runs, and while a handle is neither claimed
// nor refused. The Conn goes on.
func TestSuspendGivesUp(t *testing.T) {
	defer leaks(t)()
	t.Run("", func(t *testing.T) {
		entered, leave := make(chan *fdipc.Handle), make(chan struct{})
		a, b := new(side), new(side)
		cb := b.config(func(_ *fdipc.Conn, f *fdipc.Frame) {
			entered <- f.Handles[0]
			<-leave
		})
		a.Conn, b.Conn = joinSuspendable(t, a.config(nil), cb)
		a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{pipeHandle(t, "1")}})
		h := wait(t, "frame", entered)
		try := func(what string) {
			t.Helper()
			var err error
			till(t, "wait for "+what, nil, func() bool { // a Handler may return late
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
				defer cancel()
				if _, _, err = b.Suspend(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
				return strings.Contains(err.Error(), what)
			})
		}
		try("a Handler")
		leave <- struct{}{}
		try("a claim of a handle")
		if readHandle(t, h) != "1" {
			t.Error("the handle is another")
		}
		suspend(t, b.Conn)
		b.Resume()
		if o := wait(t, "outcome", a.outcomes); o.o != fdipc.Claimed {
			t.Error(o.o)
		}
		a.Close()
		b.Close()
		wait(t, "end", a.Done())
		wait(t, "end", b.Done())

		p, q := fdipc.Pipe(fdipc.Config{Suspendable: true, Handler: ignore}, fdipc.Config{Handler: ignore})
		if _, _, err := p.Suspend(context.Background()); !errors.Is(err, fdipc.ErrUnsupported) {
			t.Errorf("within a process: %v", err)
		}
		p.Close()
		q.Close()
		wait(t, "end", p.Done())
		wait(t, "end", q.Done())
	})
}

// A Conn is replaced before its peer has said a word, as one that was just started.
func TestSuspendBeforeHandshake(t *testing.T) {
	defer leaks(t)()
	t.Run("", func(t *testing.T) {
		l, r, err := fdipc.Socketpair()
		if err != nil {
			t.Skip(err)
		}
		ready := make(chan struct{})
		ca := fdipc.Config{Suspendable: true, Handler: ignore, Ready: func(*fdipc.Conn) { close(ready) }}
		a, err := fdipc.New(l, ca)
		if err != nil {
			t.Fatal(err)
		}
		for _, lane := range []fdipc.Lane{fdipc.Control, fdipc.Data} {
			if err := a.TrySend(&fdipc.Frame{Kind: kind, Lane: lane, Target: 7}); err != nil {
				t.Fatal(err)
			}
		}
		a = replace(t, a, ca)
		a.Resume()
		got := make(chan uint64, 2)
		b, err := fdipc.New(r, fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { got <- f.Target }})
		if err != nil {
			t.Fatal(err)
		}
		wait(t, "handshake", ready)
		if n := wait(t, "frame", got) + wait(t, "frame", got); n != 14 {
			t.Errorf("sum of the frames %d", n)
		}
		a.Close()
		wait(t, "end", a.Done())
		wait(t, "end", b.Done())
	})
}

// A state that is cut off or does not fit its descriptors is an error, and all descriptors are
// closed.
func TestRestoreDamaged(t *testing.T) {
	defer leaks(t)()
	t.Run("", func(t *testing.T) {
		a, b, held := holdingSuspendable(t)
		a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{pipeHandle(t, "1").Named("n")}})
		h := wait(t, "handle", held)
		state, fds := suspend(t, a.Conn)
		try := func(what string, state []byte, fds []int, want error) {
			t.Helper()
			dups := make([]int, len(fds))
			for i, fd := range fds {
				dups[i], _ = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 500)
			}
			_, err := fdipc.Restore(state, dups, fdipc.Config{Handler: ignore})
			if err == nil || want != nil && !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", what, err, want)
			}
			for _, fd := range dups {
				if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
					t.Errorf("%s: descriptor %d is open", what, fd)
				}
			}
		}
		for n := range state {
			try(fmt.Sprintf("%d bytes", n), state[:n], fds, fdipc.ErrState)
		}
		try("a descriptor too few", state, fds[1:], fdipc.ErrState)
		try("a descriptor too many", state, append(slices.Clone(fds), fds[0]), fdipc.ErrState)
		for i := range 5 {
			other := slices.Clone(fds)
			other[i] = fds[5] // a pipe
			if i != 1 && i != 3 {
				try(fmt.Sprintf("a pipe as descriptor %d", i), state, other, nil)
			}
		}
		if _, err := fdipc.Restore(state, nil, fdipc.Config{}); err == nil {
			t.Error("without a Handler")
		}
		a.Resume()
		h.Close()
		if o := wait(t, "outcome", a.outcomes); o.o != fdipc.Refused || readHandle(t, o.h) != "1" {
			t.Error(o.o)
		}
		a.Close()
		_ = wait(t, "end", a.closed)
		_ = wait(t, "end", b.closed)
	})
}

func holdingSuspendable(t *testing.T) (a, b *side, held <-chan *fdipc.Handle) {
	c := make(chan *fdipc.Handle, 2)
	a, b = new(side), new(side)
	a.Conn, b.Conn = joinSuspendable(t, a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) { c <- f.Handles[0] }))
	return a, b, c
}
