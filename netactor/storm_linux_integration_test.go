//go:build linux

package netactor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// The tests of this file start the test binary again as a worker.

func TestMain(m *testing.M) {
	f, env, ok, err := fdipc.Inherited()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if ok {
		workerMain(f, env)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// kindLink is the frame that brings a worker its link to the listener process.
const kindLink fdipc.Kind = 0x10

// workerMain is the life of a worker process: it writes its number to each
// connection, until its master is gone.
func workerMain(f *os.File, env map[string]string) {
	var ls *Listeners
	ready := make(chan struct{})
	c, err := fdipc.New(f, fdipc.Config{Handler: func(c *fdipc.Conn, f *fdipc.Frame) {
		<-ready
		if f.Kind == kindLink {
			file, err := f.Handles[0].File()
			if err != nil {
				panic(err)
			}
			link, err := fdipc.New(file, fdipc.Config{
				Handler: func(c *fdipc.Conn, f *fdipc.Frame) { orRefuse(f, ls.HandleFrame(c, f)) },
				Credits: LinkCredits,
			})
			if err != nil {
				panic(err)
			}
			ls.AddLink(link)
			return
		}
		orRefuse(f, ls.HandleFrame(c, f))
	}})
	if err != nil {
		panic(err)
	}
	ls = NewListeners(ListenersConfig{Master: c, Pool: "web"})
	close(ready)
	policy, _ := ParsePolicy(env["POLICY"])
	ln, err := ls.Listen(context.Background(), Request{Network: "tcp", Address: env["ADDRESS"], Policy: policy})
	if err != nil {
		panic(err)
	}
	go func() {
		<-c.Done()
		os.Exit(0)
	}()
	if n, err := strconv.Atoi(env["FILES"]); err == nil {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: uint64(n), Max: uint64(n)}); err != nil {
			panic(err)
		}
	}
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			var b [1]byte
			if _, err := io.ReadFull(conn, b[:]); err == nil {
				_, _ = io.WriteString(conn, "ok")
			}
		}()
	}
}

// proc is a worker process.
type proc struct {
	Worker
	cmd  *exec.Cmd
	gone chan struct{} // closed when it was reaped, and everybody told
}

// startProc starts a worker in a slot; master and listener process are ours.
func (tr *tree) startProc(slot int, vars map[string]string) *proc {
	tr.mu.Lock()
	tr.last++
	w := &proc{Worker: Worker{ID: tr.last, Name: fmt.Sprintf("web/%d", slot), Pool: "web", Slot: slot}, gone: make(chan struct{})}
	tr.mu.Unlock()
	local, remote, err := fdipc.Socketpair()
	if err != nil {
		tr.t.Fatal(err)
	}
	w.cmd = exec.Command(os.Args[0])
	w.cmd.Env = append(os.Environ(), fdipc.Environ(3, vars)...)
	w.cmd.ExtraFiles = []*os.File{remote}
	w.cmd.Stderr = os.Stderr
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ready := make(chan struct{})
	master, err := fdipc.New(local, fdipc.Config{Handler: func(c *fdipc.Conn, f *fdipc.Frame) {
		<-ready
		orRefuse(f, tr.table.HandleFrame(w.Worker, c, f))
	}})
	if err != nil {
		tr.t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		tr.t.Fatal(err)
	}
	remote.Close()
	tr.table.AddWorker(w.Worker, master)
	close(ready)
	mine, its, err := fdipc.Socketpair()
	if err != nil {
		tr.t.Fatal(err)
	}
	d := tr.disp
	link, err := fdipc.New(mine, fdipc.Config{
		Handler:      func(c *fdipc.Conn, f *fdipc.Frame) { orRefuse(f, d.HandleFrame(w.Worker, c, f)) },
		Settled:      func(c *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) { d.Settled(c, h, o) },
		Credits:      LinkCredits,
		ClaimTimeout: tr.claim,
	})
	if err != nil {
		tr.t.Fatal(err)
	}
	d.AddWorker(w.Worker, link)
	h := mustHandle(tr.t, its)
	if err := master.Send(testContext(tr.t), &fdipc.Frame{Kind: kindLink, Handles: []*fdipc.Handle{h}}); err != nil {
		h.Close()
	}
	go func() {
		defer close(w.gone)
		_ = w.cmd.Wait()
		tr.table.RemoveWorker(w.ID, false)
		d.RemoveWorker(w.ID)
		master.PeerGone()
		<-link.Done()
		<-master.Done()
	}()
	return w
}

// Issue 7, show 2 in small, and issue 3, show 2: connections under a storm of
// kills and stops. From the client's side: nothing is refused and nothing hangs;
// what is cut was being served. From the listener's side: the counts balance.
func TestStorm(t *testing.T) {
	for _, p := range []Policy{RoundRobin, LeastLoaded, Shared} {
		t.Run(p.String(), func(t *testing.T) { storm(t, p) })
	}
}

func storm(t *testing.T, p Policy) {
	clients, each, kills := 8, 150, 20
	if s := os.Getenv("COPPICE_SOAK"); s == "1" {
		each, kills = 6500, 200
	}
	tr := newTree(t, false, func(tr *tree) { tr.claim = 100 * time.Millisecond })
	addr, err := tr.table.Open(testContext(t), "listener/storm", Request{Network: "tcp", Address: "127.0.0.1:0", Policy: p})
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{"ADDRESS": addr.String(), "POLICY": p.String()}
	procs := make([]*proc, 3)
	for i := range procs {
		procs[i] = tr.startProc(i, vars)
	}
	var ok, cut, refused, hung atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range each {
				switch err := roundTrip(addr.String()); {
				case err == nil:
					ok.Add(1)
				case isTimeout(err):
					hung.Add(1)
				case isDial(err):
					refused.Add(1)
					t.Errorf("refused: %v", err)
				default:
					cut.Add(1)
				}
			}
		})
	}
	stormOver := make(chan struct{})
	go func() { wg.Wait(); close(stormOver) }()
	killed := 0
	rnd := rand.New(rand.NewPCG(1, 2))
	for over := false; !over && killed < kills; {
		// The next blow falls when some more connections were served.
		goal := ok.Load() + int64(rnd.IntN(1+clients*each/kills))
		until(t, "more connections", func() bool {
			select {
			case <-stormOver:
				over = true
			default:
			}
			return over || ok.Load() >= goal
		})
		i := rnd.IntN(len(procs))
		if rnd.IntN(3) == 0 { // stopped, its unclaimed are revoked, then killed
			_ = procs[i].cmd.Process.Signal(syscall.SIGSTOP)
			before := ok.Load()
			until(t, "others to go on", func() bool {
				select {
				case <-stormOver:
					return true
				default:
					return p == Shared || ok.Load() > before+5
				}
			})
		}
		_ = procs[i].cmd.Process.Kill()
		<-procs[i].gone
		killed++
		procs[i] = tr.startProc(i, vars)
	}
	<-stormOver
	attempted := int64(clients * each)
	t.Logf("%s: attempted %d, ok %d, cut %d, refused %d, hung %d, kills %d", p, attempted, ok.Load(), cut.Load(), refused.Load(), hung.Load(), killed)
	if ok.Load()+cut.Load() != attempted || refused.Load()+hung.Load() != 0 {
		t.Error("connections do not add up at the client")
	}
	if p.dispatched() {
		until(t, "the counts to settle", func() bool {
			c := tr.stats().Counts
			return c.Waiting+c.Offered == 0 && c.Accepted == uint64(attempted)
		})
		until(t, "the ends to be reported", func() bool {
			open := 0
			for _, w := range tr.stats().Workers {
				open += w.Counts.Open()
			}
			return open == 0
		})
		st := tr.stats()
		total := st.Gone
		for _, w := range st.Workers {
			total.add(w.Counts)
		}
		t.Logf("%s: %+v; workers together %+v", p, st.Counts, total)
		if !st.Counts.Balanced() || !total.Balanced() || total.Claimed != st.Counts.Claimed ||
			total.Claimed != total.Finished+total.Died || cut.Load() > int64(total.Died+st.Counts.Reset) {
			t.Error("counts do not balance")
		}
	}
	for _, w := range procs {
		_ = w.cmd.Process.Kill()
		<-w.gone
	}
}

// X2: a worker out of descriptors loses nothing: what it could not receive goes
// to another worker. When it has descriptors again it is back by itself.
func TestOutOfDescriptorsX2(t *testing.T) {
	tr := newTree(t, false)
	addr, err := tr.table.Open(testContext(t), "listener/x2", loopback)
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{"ADDRESS": addr.String(), "POLICY": "round-robin"}
	roomy := tr.startProc(0, vars)
	tr.joined(1)
	vars["FILES"] = "24"
	tight := tr.startProc(1, vars)
	tr.joined(2)
	of := func() SeatCounts {
		for _, w := range tr.stats().Workers {
			if w.Worker.ID == tight.ID {
				return w.Counts
			}
		}
		return SeatCounts{}
	}
	const n = 60
	var clients []net.Conn
	for range n {
		c, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		clients = append(clients, c)
	}
	tr.settled(n)
	claimed := of().Claimed
	if of().Refused == 0 || claimed >= n/2 {
		t.Fatalf("the worker was not out of descriptors: %+v", of())
	}
	for _, c := range clients {
		_ = c.SetDeadline(time.Now().Add(deadline))
		if _, err := c.Write([]byte{'x'}); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); string(b) != "ok" || err != nil {
			t.Fatalf("answer %q, %v", b, err)
		}
	}
	until(t, "the worker to be back", func() bool {
		if err := roundTrip(addr.String()); err != nil {
			t.Fatal(err)
		}
		return of().Claimed > claimed+1
	})
	for _, w := range []*proc{roomy, tight} {
		_ = w.cmd.Process.Kill()
		<-w.gone
	}
}

// roundTrip connects, writes a byte and reads the answer.
func roundTrip(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(deadline))
	if _, err := c.Write([]byte{'x'}); err != nil {
		return err
	}
	b, err := io.ReadAll(c)
	if err == nil && string(b) != "ok" {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

func isDial(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "dial"
}

// The worker's own descriptor of a number is not the master's (show 9, N96).
func TestFDIsTheMasters(t *testing.T) {
	tr := newTree(t, false)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	rc, _ := ln.(*net.TCPListener).SyscallConn()
	var fd int
	_ = rc.Control(func(n uintptr) { fd = int(n) })
	w := tr.worker(0)
	got := w.mustListen(Request{FD: fd})
	if got.Addr().String() != ln.Addr().String() {
		t.Errorf("%s, want %s of descriptor %s", got.Addr(), ln.Addr(), strconv.Itoa(fd))
	}
	ln.Close()
	go serveID(got, "fd")
	if s := ask1(t, "tcp", got.Addr().String()); s != "fd" {
		t.Errorf("answer %q", s)
	}
}
