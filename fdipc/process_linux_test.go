package fdipc_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/fdipc/fdipctest"
)

// The tests below run over real processes: this test binary, started again with a role.

const (
	kindConn  fdipc.Kind = 0x40 // here are connections: serve them
	kindClaim fdipc.Kind = 0x41 // Target is the inode of a socket that was claimed
	kindLink  fdipc.Kind = 0x42 // here is one end of a further channel
	kindCount fdipc.Kind = 0x43 // how many descriptors are open? and the answer, in Target
)

func TestMain(m *testing.M) {
	f, env, ok, err := fdipc.Inherited()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	case !ok:
		os.Exit(m.Run())
	}
	roles[env["ROLE"]](f, env)
}

var roles = map[string]func(*os.File, map[string]string){
	"worker":     func(f *os.File, env map[string]string) { (&worker{env: env}).run(f) },
	"dispatcher": func(f *os.File, env map[string]string) { (&dispatcher{worker: worker{env: env}}).run(f) },
	"list":       listDescriptors,
}

type child struct {
	*fdipc.Conn
	cmd    *exec.Cmd
	exited chan struct{}
}

// spawn starts this binary with a role, and joins it. When the process was reaped the Conn is told.
func spawn(t testing.TB, cfg fdipc.Config, env map[string]string) *child {
	t.Helper()
	local, remote, err := fdipc.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{remote}
	cmd.Env = append(os.Environ(), fdipc.Environ(3, env)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	remote.Close()
	c, err := fdipc.New(local, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ch := &child{c, cmd, make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		c.PeerGone()
		close(ch.exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGCONT)
		c.Close() // a worker ends with its Conn
		fdipctest.Wait(t, "exit of a child", ch.exited)
		fdipctest.Wait(t, "end of its Conn", c.Done())
	})
	return ch
}

func suicide() {
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	select {}
}

// worker serves the connections it is given: one byte, its mark. At its point it dies.
type worker struct {
	env   map[string]string
	main  *fdipc.Conn
	mu    sync.Mutex
	seen  int
	files int
}

func (w *worker) run(f *os.File) {
	w.files = openFiles()
	c, err := fdipc.New(f, fdipc.Config{Handler: w.handle})
	if err != nil {
		panic(err)
	}
	<-c.Done()
}

func (w *worker) point(name string, n int) {
	if at, _ := strconv.Atoi(w.env["AT"]); w.env["POINT"] == name && n == at {
		suicide()
	}
}

func (w *worker) handle(c *fdipc.Conn, f *fdipc.Frame) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch f.Kind {
	case kindLink:
		w.main = c
		if _, err := joinLink(f.Handles[0], fdipc.Config{Handler: w.handle}); err != nil {
			panic(err)
		}
	case kindCount:
		_ = c.TrySend(&fdipc.Frame{Kind: kindCount, Target: uint64(openFiles() - w.files)})
	case kindConn:
		for _, h := range f.Handles {
			w.seen++
			n := w.seen
			w.point("frame", n)
			conn, err := h.Conn()
			if err != nil {
				continue // revoked
			}
			w.point("claimed", n)
			var st unix.Stat_t
			_ = unix.Fstat(int(conn.(*fdipc.Socket).Fd()), &st)
			to := c
			if w.main != nil {
				to = w.main
			}
			if err := to.TrySend(&fdipc.Frame{Kind: kindClaim, Target: st.Ino}); err != nil && w.main == nil {
				panic(err)
			}
			w.point("reported", n)
			_, _ = conn.Write([]byte(w.env["MARK"]))
			w.point("served", n)
			conn.Close()
			w.point("closed", n)
		}
	}
}

func joinLink(h *fdipc.Handle, cfg fdipc.Config) (*fdipc.Conn, error) {
	f, err := h.File()
	if err != nil {
		return nil, err
	}
	return fdipc.New(f, cfg)
}

func openFiles() int {
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	return len(names)
}

// dispatcher takes connections from the test and sends them on to a worker over a link.
type dispatcher struct {
	worker
	link *fdipc.Conn
}

func (d *dispatcher) run(f *os.File) {
	c, err := fdipc.New(f, fdipc.Config{Handler: d.handle})
	if err != nil {
		panic(err)
	}
	<-c.Done()
}

func (d *dispatcher) handle(_ *fdipc.Conn, f *fdipc.Frame) {
	switch f.Kind {
	case kindLink:
		settled := 0
		link, err := joinLink(f.Handles[0], fdipc.Config{
			Handler: func(*fdipc.Conn, *fdipc.Frame) {},
			Settled: func(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
				settled++
				d.point("settled", settled)
				if o != fdipc.Claimed {
					h.Close()
				}
			},
		})
		if err != nil {
			panic(err)
		}
		d.link = link
	case kindConn:
		for _, h := range f.Handles {
			d.seen++
			n := d.seen
			d.point("frame", n)
			if h.Claim() != nil {
				continue
			}
			d.point("claimed", n)
			if err := d.link.Send(context.Background(), &fdipc.Frame{Kind: kindConn, Lane: fdipc.Lane(n % 2), Handles: []*fdipc.Handle{h}}); err != nil {
				panic(err)
			}
			d.point("sent", n)
		}
	}
}

// client is one connection of a test, seen from its client's end.
type client struct {
	conn    net.Conn
	inode   uint64
	outcome fdipc.Outcome
	settled int
	got     []byte
}

// clients makes n connections and a handle for the server's end of each, tagged with the client.
func clients(t testing.TB, n int) (cs []*client, hs []*fdipc.Handle) {
	t.Helper()
	for range n {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		_ = unix.Fstat(p[1], &st)
		c := &client{conn: nil, inode: st.Ino}
		if c.conn, err = fdipc.HandleFD(p[0]).Conn(); err != nil {
			t.Fatal(err)
		}
		h := fdipc.HandleFD(p[1])
		h.Tag = c
		cs, hs = append(cs, c), append(hs, h)
	}
	return cs, hs
}

// readAll reads what every client gets, to the end.
func readAll(t testing.TB, cs []*client) {
	t.Helper()
	var wg sync.WaitGroup
	for _, c := range cs {
		wg.Go(func() {
			c.conn.SetDeadline(time.Now().Add(20 * time.Second))
			b, err := io.ReadAll(c.conn)
			if err != nil && !bytes.Contains([]byte(err.Error()), []byte("reset")) {
				t.Errorf("client: %v (settled %d times, last %v)", err, c.settled, c.outcome)
			}
			c.got = b
			c.conn.Close()
		})
	}
	wg.Wait()
}

func soak(normal, soak int) int {
	if os.Getenv("COPPICE_SOAK") != "" {
		return soak
	}
	return normal
}

func seeds(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("COPPICE_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("COPPICE_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// Either side of a hand-over is killed at a named point, or at any moment. By the inodes that were claimed and by what the
// clients received, every connection was claimed once, came back, or died with its claimant.
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
			check := fdipctest.Leaks(t)
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
	second := spawn(t, fdipc.Config{Handler: b.handle, ClaimTimeout: -1, Settled: func(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
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
		Settled: func(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
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
	fdipctest.Wait(t, "death", dying.exited)
	fdipctest.Wait(t, "end of the Conn", closed)
	close(again)
	for h := range again {
		hs = append(hs, h)
	}
	for _, h := range hs {
		if err := second.Send(context.Background(), &fdipc.Frame{Kind: kindConn, Handles: []*fdipc.Handle{h}}); err != nil {
			t.Fatal(err)
		}
	}
	fdipctest.Wait(t, "end of all offers", b.done)
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

// openIn asks a worker how many descriptors it has opened and not closed. Those of its Conns do not count.
func openIn(t *testing.T, b *book, c *child) int {
	t.Helper()
	conns := 3 // the two ends of the data lane, the table
	if err := c.Send(context.Background(), &fdipc.Frame{Kind: kindCount}); err != nil {
		t.Fatal(err)
	}
	return int(fdipctest.Wait(t, "count", b.count)) - conns
}

// killDispatcher: the test hands to a dispatcher that dies, which hands on to a worker that lives. What comes back to the
// test it serves itself.
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
		Settled: func(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
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
	fdipctest.Wait(t, "death", dying.exited)
	fdipctest.Wait(t, "end of the Conn", closed)
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

// A worker is stopped and continued at any moment while connections are offered to it that are revoked after
// a few milliseconds. What comes back the test serves itself. Nobody is served twice, nobody not at all.
func TestStop(t *testing.T) {
	const mark = "1"
	rnd := seeds(t)
	rounds := soak(10000, 100000)
	b := newBook(0)
	type end struct {
		h *fdipc.Handle
		o fdipc.Outcome
	}
	ends := make(chan end, 1<<10)
	w := spawn(t, fdipc.Config{
		ClaimTimeout: 3 * time.Millisecond, Credits: 64,
		Handler: b.handle,
		Settled: func(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) { ends <- end{h, o} },
	}, map[string]string{"ROLE": "worker", "MARK": mark})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // the pauses are the test's load, not its clock
		for {
			for _, sig := range []unix.Signal{unix.SIGSTOP, unix.SIGCONT} {
				_ = w.cmd.Process.Signal(sig)
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(rnd.IntN(12000)) * time.Microsecond):
				}
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	sum := make(map[fdipc.Outcome]int)
	for done := 0; done < rounds; {
		batch := min(64, rounds-done)
		cs, hs := clients(t, batch)
		go func() {
			for _, h := range hs {
				if err := w.Send(context.Background(), &fdipc.Frame{Kind: kindConn, Lane: fdipc.Data, Handles: []*fdipc.Handle{h}}); err != nil {
					t.Error(err)
				}
			}
		}()
		for range batch {
			e := fdipctest.Wait(t, "outcome", ends)
			c := e.h.Tag.(*client)
			c.outcome = e.o
			c.settled++
			sum[e.o]++
			if e.o == fdipc.Claimed {
				continue
			}
			conn, err := e.h.Conn()
			if err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write([]byte("0"))
			conn.Close()
		}
		readAll(t, cs)
		for _, c := range cs {
			want := "0"
			if c.outcome == fdipc.Claimed {
				want = mark
			}
			if string(c.got) != want || c.settled != 1 {
				t.Fatalf("client got %q, %v, settled %d times", c.got, c.outcome, c.settled)
			}
		}
		done += batch
	}
	st := w.Stats()
	t.Logf("%v; %d revoked in %d stalls", sum, st.Revoked, st.Stalls)
	if sum[fdipc.Claimed] == 0 || sum[fdipc.Returned] == 0 {
		t.Errorf("the race was never run: %v", sum)
	}
}

// listDescriptors answers with what it has open, in itself and in a grandchild.
func listDescriptors(f *os.File, _ map[string]string) {
	c, err := fdipc.New(f, fdipc.Config{Handler: func(c *fdipc.Conn, f *fdipc.Frame) {
		for _, h := range f.Handles {
			_ = h.Claim()
		}
		out, err := exec.Command("/bin/sh", "-c", "ls -l /proc/self/fd; env").CombinedOutput()
		if err != nil {
			out = append(out, err.Error()...)
		}
		_ = c.TrySend(&fdipc.Frame{Kind: kindCount, Payload: out})
	}})
	if err != nil {
		panic(err)
	}
	<-c.Done()
}
