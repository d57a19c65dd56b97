//go:build linux

package netactor_test

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

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/listen"
)

// The tests of this file start the test binary again as a worker.

func TestMain(m *testing.M) {
	f, env, ok, err := fdipc.Inherited()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if ok {
		if env["ROLE"] == "listener" {
			dispatcherMain(f)
		} else {
			workerMain(f, env)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// kindLink is the frame with which a worker gets its link to the listener process.
const kindLink fdipc.Kind = 0x10

// workerMain is the main function of a worker process: it writes its number to each connection,
// until its master is gone.
func workerMain(f *os.File, env map[string]string) {
	var ls *listen.Listeners
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
				Credits: netactor.LinkCredits,
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
	ls = listen.New(listen.Config{Master: c, Pool: "web"})
	close(ready)
	policy, _ := netactor.ParsePolicy(env["POLICY"])
	ln, err := ls.Listen(context.Background(), netactor.Request{Network: "tcp", Address: env["ADDRESS"], Policy: policy})
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
		if errors.Is(err, syscall.EMFILE) { // with Shared; as net/http does
			time.Sleep(time.Millisecond)
			continue
		}
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
	netactor.Worker
	cmd  *exec.Cmd
	gone chan struct{} // closed when it was reaped, and all processes know it
}

// startProc starts a worker in a slot; this process is master and listener process.
func (tr *tree) startProc(slot int, vars map[string]string) *proc {
	tr.mu.Lock()
	tr.last++
	w := &proc{Worker: netactor.Worker{ID: tr.last, Name: fmt.Sprintf("web/%d", slot), Pool: "web", Slot: slot}, gone: make(chan struct{})}
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
		Resolved:     func(c *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) { d.Settled(c, h, o) },
		Credits:      netactor.LinkCredits,
		ClaimTimeout: tr.claim,
	})
	if err != nil {
		tr.t.Fatal(err)
	}
	d.AddWorker(w.Worker, link)
	h := handleOf(tr.t, its)
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

// Connections under a storm of blows: workers are killed, stopped and continued or killed, run out
// of descriptors, and so does the listener process. From the client's side nothing is refused and
// nothing hangs; each connection that is cut was being served. From the listener's side every
// connection is accounted for.
func TestStorm(t *testing.T) {
	for _, name := range []string{"round-robin", "least-loaded", "hash", "shared", "reuseport"} {
		t.Run(name, func(t *testing.T) {
			p, err := netactor.ParsePolicy(name)
			if err != nil {
				t.Skip(err)
			}
			newStorm(t, p).run()
		})
	}
}

// soak makes it long.
var soak = os.Getenv("COPPICE_SOAK") == "1"

// aStorm is one run of TestStorm.
type aStorm struct {
	t       *testing.T
	tr      *tree
	policy  netactor.Policy
	addr    string
	vars    map[string]string
	procs   []*proc
	clients int
	each    int // connections a client
	blows   int
	rnd     *rand.Rand

	exhaust atomic.Int64  // how many calls of accept4 are to fail in the listener process
	served  chan struct{} // a token for each connection that was served, as long as there is room
	over    chan struct{} // closed when all clients are done

	ok, cut, quit, refused, hung atomic.Int64
	struck                       map[string]int
}

func newStorm(t *testing.T, p netactor.Policy) *aStorm {
	s := &aStorm{
		t: t, policy: p, clients: 8, each: 120, blows: 20, rnd: rand.New(rand.NewPCG(1, 2)),
		served: make(chan struct{}, 1), over: make(chan struct{}), struck: map[string]int{},
	}
	if soak {
		s.each, s.blows = 6500, 200
	}
	s.tr = newTree(t, false, func(tr *tree) {
		tr.claim = 100 * time.Millisecond
		tr.hooks.Accept = func(next func() (int, error)) (int, error) {
			if s.exhaust.Load() > 0 && s.exhaust.Add(-1) >= 0 {
				return -1, unix.EMFILE
			}
			return next()
		}
	})
	addr, err := s.tr.table.Open(testContext(t), "listener/storm", netactor.Request{Network: "tcp", Address: "127.0.0.1:0", Policy: p})
	if err != nil {
		t.Fatal(err)
	}
	s.addr = addr.String()
	s.vars = map[string]string{"ADDRESS": s.addr, "POLICY": p.String()}
	for i := range 3 {
		s.procs = append(s.procs, s.tr.startProc(i, s.vars))
	}
	return s
}

func (s *aStorm) run() {
	var wg sync.WaitGroup
	for id := range s.clients {
		wg.Go(func() { s.client(id) })
	}
	go func() { wg.Wait(); close(s.over) }()
	dealt := 0
	for ; dealt < s.blows; dealt++ {
		// The next blow falls when some more connections were served.
		if !s.more(s.rnd.IntN(1 + s.clients*s.each/s.blows*5/4)) {
			break
		}
		s.blow(s.rnd.IntN(len(s.procs)))
	}
	<-s.over
	attempted := int64(s.clients * s.each)
	if soak && dealt < s.blows {
		s.t.Errorf("%d blows, want %d", dealt, s.blows)
	}
	s.t.Logf("%s: attempted %d: ok %d, cut %d, ended by the client %d, refused %d, hung %d; blows %d: %v",
		s.policy, attempted, s.ok.Load(), s.cut.Load(), s.quit.Load(), s.refused.Load(), s.hung.Load(), dealt, s.struck)
	if s.ok.Load()+s.cut.Load()+s.quit.Load() != attempted || s.refused.Load()+s.hung.Load() != 0 {
		s.t.Error("connections do not add up at the client")
	}
	if s.policy.Dispatched() {
		s.balance(attempted)
	}
	for _, w := range s.procs {
		_ = w.cmd.Process.Kill()
		<-w.gone
	}
}

// more waits until n more connections were served. It returns false when there are no more.
func (s *aStorm) more(n int) bool {
	for goal := s.ok.Load() + int64(n); s.ok.Load() < goal; {
		select {
		case <-s.served:
		case <-s.over:
			return false
		}
	}
	return true
}

// blow strikes worker i, or the listener process.
func (s *aStorm) blow(i int) {
	w := s.procs[i]
	signal := func(sig syscall.Signal) { _ = w.cmd.Process.Signal(sig) }
	kill := func() {
		signal(syscall.SIGKILL)
		<-w.gone
		s.procs[i] = s.tr.startProc(i, s.vars)
	}
	stop := func() {
		signal(syscall.SIGSTOP)
		if s.policy.Dispatched() { // otherwise it may hold all open connections
			s.more(5)
		}
	}
	// Out of descriptors: whatever number the next one gets is too high.
	descriptors := func(n uint64) {
		lim := unix.Rlimit{Cur: n, Max: 4096}
		if err := unix.Prlimit(w.cmd.Process.Pid, unix.RLIMIT_NOFILE, &lim, nil); err != nil {
			s.t.Errorf("prlimit: %v", err)
		}
	}
	var what string
	switch n := s.rnd.IntN(10); {
	case n < 4:
		what = "killed"
		kill()
	case n < 6:
		what = "stopped, killed"
		stop()
		kill()
	case n < 7:
		what = "stopped, continued"
		stop()
		signal(syscall.SIGCONT)
	case n < 9:
		what = "worker out of descriptors"
		descriptors(8)
		if s.policy != netactor.ReusePort { // otherwise all clients may wait for it
			s.more(20)
		}
		descriptors(4096)
	default:
		what = "listener out of descriptors"
		s.exhaust.Store(3)
	}
	s.struck[what]++
}

// balance checks the counts of the listener, once all reports have come.
func (s *aStorm) balance(attempted int64) {
	t, tr := s.t, s.tr
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
		if !w.Counts.Balanced() {
			t.Errorf("counts of %s do not balance: %+v", w.Worker.Name, w.Counts)
		}
		total.Claimed += w.Counts.Claimed
		total.Finished += w.Counts.Finished
		total.Died += w.Counts.Died
	}
	t.Logf("%s: %+v; workers together %+v", s.policy, st.Counts, total)
	if !st.Counts.Balanced() || !st.Gone.Balanced() || total.Claimed != st.Counts.Claimed ||
		total.Claimed != total.Finished+total.Died || st.Counts.Dropped != 0 {
		t.Error("counts do not balance")
	}
	// What the clients saw: an answer needs a claim, and only a death or a reset cuts a connection.
	if s.cut.Load() > int64(total.Died) || s.ok.Load() > int64(total.Claimed) || st.Counts.Reset > uint64(s.quit.Load()) {
		t.Error("the sides do not agree")
	}
}

// client makes its connections, one after the other, each from another address. It resets some of
// them before the answer.
func (s *aStorm) client(id int) {
	rnd := rand.New(rand.NewPCG(3, uint64(id)))
	d := net.Dialer{Timeout: deadline}
	for i := range s.each {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+id), byte(2+i%200))}
		quits := rnd.IntN(20) == 0
		switch err := roundTrip(&d, s.addr, quits); {
		case err == nil && quits:
			s.quit.Add(1)
		case err == nil:
			s.ok.Add(1)
			select {
			case s.served <- struct{}{}:
			default:
			}
		case isTimeout(err):
			s.hung.Add(1)
		case isDial(err):
			s.refused.Add(1)
			s.t.Errorf("refused: %v", err)
		default:
			s.cut.Add(1)
		}
	}
}

// X2: a worker out of descriptors loses nothing: the connections that it could not receive go to
// another worker. It takes connections again when it has descriptors.
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
	of := func() netactor.WorkerCounts {
		for _, w := range tr.stats().Workers {
			if w.Worker.ID == tight.ID {
				return w.Counts
			}
		}
		return netactor.WorkerCounts{}
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
		if err := roundTrip(new(net.Dialer), addr.String(), false); err != nil {
			t.Fatal(err)
		}
		return of().Claimed > claimed+1
	})
	for _, w := range []*proc{roomy, tight} {
		_ = w.cmd.Process.Kill()
		<-w.gone
	}
}

// roundTrip connects, writes a byte and reads the answer; or resets the connection instead, if it
// quits.
func roundTrip(d *net.Dialer, addr string, quits bool) error {
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if quits {
		return c.(*net.TCPConn).SetLinger(0)
	}
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
	got := w.mustListen(netactor.Request{FD: fd})
	if got.Addr().String() != ln.Addr().String() {
		t.Errorf("%s, want %s of descriptor %s", got.Addr(), ln.Addr(), strconv.Itoa(fd))
	}
	ln.Close()
	go serveID(got, "fd")
	if s := ask(t, "tcp", got.Addr().String()); s != "fd" {
		t.Errorf("answer %q", s)
	}
}
