package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coppice-go/coppice/examples/examplestest"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// recordsVar is the directory where each worker keeps its records, when it is to.
const recordsVar = "COPPICE_TEST_RECORDS"

func TestMain(m *testing.M) {
	if dir := os.Getenv(recordsVar); dir != "" {
		tap = func(w *coppice.Worker, pc net.PacketConn) net.PacketConn {
			return &recorder{PacketConn: pc, took: createRecord(dir, "took", w), answered: createRecord(dir, "answered", w)}
		}
	}
	runtimetest.Main(m, main)
}

// recorder writes down the number of each datagram that a worker has read, and of each that it
// has answered, by one system call each: what is written survives the worker.
type recorder struct {
	net.PacketConn
	took, answered *os.File
	n              [8]byte
}

func createRecord(dir, what string, w *coppice.Worker) *os.File {
	f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%s-%d-%d", what, w.ID(), os.Getpid())))
	if err != nil {
		panic(err)
	}
	return f
}

func (k *recorder) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := k.PacketConn.ReadFrom(b)
	if err == nil {
		seq, _ := strconv.ParseUint(string(b[:n]), 10, 64)
		binary.LittleEndian.PutUint64(k.n[:], seq)
		if _, err := k.took.Write(k.n[:]); err != nil {
			panic(err)
		}
	}
	return n, from, err
}

func (k *recorder) WriteTo(b []byte, to net.Addr) (int, error) {
	n, err := k.PacketConn.WriteTo(b, to)
	if err == nil {
		if _, err := k.answered.Write(k.n[:]); err != nil {
			panic(err)
		}
	}
	return n, err
}

// livingWorkers are the processes that keep records and live.
func livingWorkers(dir string) (pids []int) {
	names, _ := filepath.Glob(filepath.Join(dir, "took-*"))
	for _, name := range names {
		pid, _ := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
		if runtimetest.Alive(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// readRecords returns the numbers in the records of that kind, for each process.
func readRecords(t *testing.T, dir, what string) map[int][]uint64 {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, what+"-*"))
	if err != nil {
		t.Fatal(err)
	}
	records := map[int][]uint64{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
		if err != nil {
			t.Fatal(err)
		}
		for ; len(b) >= 8; b = b[8:] {
			records[pid] = append(records[pid], binary.LittleEndian.Uint64(b))
		}
		if len(b) != 0 {
			t.Errorf("%s ends within a number", name)
		}
	}
	return records
}

// client asks with numbered datagrams, window of them at a time, and counts answers.
type client struct {
	t    *testing.T
	conn *net.UDPConn
	mu   sync.Mutex
	sent uint64
	got  map[uint64]int // how often each number was answered
	stop bool
	room sync.Cond
	done chan struct{} // the reader has ended
}

// window is how many are under way at a time: few enough for the kernel's queues, which hold some
// 270 small datagrams by default.
const window = 64

func newClient(t *testing.T, addr string) *client {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, conn: conn.(*net.UDPConn), got: map[uint64]int{}, done: make(chan struct{})}
	c.room.L = &c.mu
	go c.read() // ends with the socket
	return c
}

func (c *client) read() {
	defer close(c.done)
	b := make([]byte, 2048)
	for {
		n, err := c.conn.Read(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			c.t.Errorf("read: %v", err) // ECONNREFUSED: no process has the port
			continue
		}
		var seq uint64
		var name string
		if _, err := fmt.Sscan(string(b[:n]), &seq, &name); err != nil {
			c.t.Errorf("answer %q", b[:n])
		}
		c.mu.Lock()
		c.got[seq]++
		c.mu.Unlock()
		c.room.Broadcast()
	}
}

// run sends until halt. lost is how many may never be answered, and do not count as under way.
func (c *client) run(lost func() int) {
	for {
		c.mu.Lock()
		for !c.stop && int(c.sent)-len(c.got)-lost() >= window {
			c.room.Wait()
		}
		if c.stop {
			c.mu.Unlock()
			return
		}
		seq := c.sent
		c.sent++
		c.mu.Unlock()
		if _, err := c.conn.Write(strconv.AppendUint(nil, seq, 10)); err != nil {
			c.t.Errorf("send: %v", err)
		}
	}
}

func (c *client) halt() {
	c.mu.Lock()
	c.stop = true
	c.mu.Unlock()
	c.room.Broadcast()
}

func (c *client) answered() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.got)
}

// kernel returns what the kernel says of the sockets on a port: bytes that wait, and datagrams
// dropped for want of room.
func kernel(t *testing.T, port string) (queued, dropped int) {
	t.Helper()
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open("/proc/net/udp")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// Each read(2) finds its place by counting, and misses a socket if one before it, of any
	// process, is closed just then. So there is one read for 31 sockets, in place of four.
	b, err := io.ReadAll(bufio.NewReaderSize(file, 1<<16))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", n)) {
			continue
		}
		_, rx, _ := strings.Cut(f[4], ":")
		q, err := strconv.ParseInt(rx, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		d, err := strconv.Atoi(f[len(f)-1])
		if err != nil {
			t.Fatal(err)
		}
		queued, dropped = queued+int(q), dropped+d
	}
	return queued, dropped
}

// kills is how many workers die. Each may lose one datagram that the client goes on to wait for, so
// that more of them, with one client, would want more room than the kernel's queues have.
const kills = 20

// rounds is how often that is done: COPPICE_SOAK=1 makes it ten times.
func rounds() int {
	if os.Getenv("COPPICE_SOAK") != "" {
		return 10
	}
	return 1
}

// TestKill: workers are killed with −9 under load, and no datagram is lost but what a killed worker
// had in its hands. It is counted on both sides: by the numbers that the client sent and got back,
// and by the records of the workers. The kernel drops none.
func TestKill(t *testing.T) {
	for _, policy := range []string{"shared", "reuseport"} {
		for range rounds() {
			t.Run(policy, func(t *testing.T) { testKill(t, policy) })
		}
	}
}

func testKill(t *testing.T, policy string) {
	dir := t.TempDir()
	const workers = 4
	p := runtimetest.Start(t, []string{recordsVar + "=" + dir}, "-addr", "127.0.0.1:0", "-workers", strconv.Itoa(workers), "-policy", policy)
	addr := p.Await(`^udp://(\S+)`)[1]
	_, port, _ := strings.Cut(addr, ":")
	living := func() []int { return livingWorkers(dir) }
	runtimetest.Eventually(t, "four workers", func() bool { return len(living()) == workers })

	c := newClient(t, addr)
	defer c.conn.Close()
	var killed sync.Map // pid → true
	dead := func() (n int) {
		killed.Range(func(any, any) bool { n++; return true })
		return n
	}
	sending := make(chan struct{})
	go func() { defer close(sending); c.run(dead) }()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range kills {
		before := c.answered()
		runtimetest.Eventually(t, "answers between two kills", func() bool { return c.answered() > before+100 })
		pids := living()
		victim := pids[rnd.IntN(len(pids))]
		killed.Store(victim, true)
		if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		runtimetest.Eventually(t, "a replacement", func() bool { return !runtimetest.Alive(victim) && len(living()) == workers })
	}
	c.halt()
	<-sending
	// The kernel delivers on loopback at once. So what is sent and waits in no socket was read; and
	// a worker that was asked to stop answers what it has read.
	var dropped, droppedHere, queued int
	runtimetest.Eventually(t, "everything to be read", func() bool {
		queued, dropped = kernel(t, port)
		return queued == 0
	})
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	_, local, _ := strings.Cut(c.conn.LocalAddr().String(), ":")
	runtimetest.Eventually(t, "every answer to be read", func() bool {
		queued, droppedHere = kernel(t, local)
		return queued == 0
	})
	if dropped+droppedHere != 0 {
		t.Errorf("the kernel has dropped %d datagrams to the service and %d to the client", dropped, droppedHere)
	}
	c.conn.Close()
	<-c.done
	took, answered := readRecords(t, dir, "took"), readRecords(t, dir, "answered")

	// Which worker took what, by the workers' notes.
	takers := map[uint64]int{}
	for pid, numbers := range took {
		for _, seq := range numbers {
			if other, twice := takers[seq]; twice {
				t.Errorf("datagram %d was taken by %d and by %d", seq, other, pid)
			}
			takers[seq] = pid
		}
	}
	sent := map[uint64]bool{} // by the workers' records
	for _, numbers := range answered {
		for _, seq := range numbers {
			sent[seq] = true
		}
	}
	// What each killed worker lost.
	inHands, unwritten := map[int]int{}, 0
	for seq := range c.sent {
		switch n := c.got[seq]; {
		case n > 1:
			t.Errorf("datagram %d was answered %d times", seq, n)
		case n == 0 && sent[seq]:
			t.Errorf("the answer to datagram %d was sent by %d and has not come", seq, takers[seq])
		case n == 1 && takers[seq] == 0:
			t.Errorf("datagram %d was answered, and taken by no worker", seq)
		case n == 0 && takers[seq] == 0:
			unwritten++ // killed between the read and the entry
		case n == 0:
			inHands[takers[seq]]++
		}
	}
	held, bare := 0, 0
	for pid, n := range inHands {
		if _, ok := killed.Load(pid); !ok {
			t.Errorf("process %d lost %d datagrams and was not killed", pid, n)
		} else if n > 1 {
			t.Errorf("process %d lost %d datagrams, and it holds one at a time", pid, n)
		}
		held += n
	}
	for pid := range took {
		if _, ok := killed.Load(pid); ok && inHands[pid] == 0 {
			bare++
		}
	}
	if unwritten > bare {
		t.Errorf("%d datagrams were taken by no worker, and %d killed workers may have read one", unwritten, bare)
	}
	// The records agree with the client, but for an answer that was sent and not written down.
	inBooks := 0
	for pid, numbers := range answered {
		inBooks += len(numbers)
		if d := len(took[pid]) - len(numbers); d > 1 {
			t.Errorf("process %d took %d and answered %d", pid, len(took[pid]), len(numbers))
		}
	}
	lost := int(c.sent) - len(c.got)
	t.Logf("sent %d, answered %d, lost %d by %d kills: %d in a worker's hands by its records, %d read and not written down; answered by the records %d",
		c.sent, len(c.got), lost, dead(), held, unwritten, inBooks)
	if lost != held+unwritten || len(c.got) < inBooks || len(c.got) > inBooks+dead() {
		t.Errorf("the sides disagree")
	}

	if left, err := net.ListenPacket("udp", addr); err != nil {
		t.Errorf("the port is taken still: %v", err)
	} else {
		left.Close()
	}
}

// TestReload: workers are replaced under load, three times over, and every datagram is answered
// once; counted by the client, and by the kernel's drops.
func TestReload(t *testing.T) {
	for _, policy := range []string{"shared", "reuseport"} {
		t.Run(policy, func(t *testing.T) {
			dir := t.TempDir()
			const workers = 2
			p := runtimetest.Start(t, []string{recordsVar + "=" + dir}, "-addr", "127.0.0.1:0", "-workers", strconv.Itoa(workers), "-policy", policy)
			addr := p.Await(`^udp://(\S+)`)[1]
			_, port, _ := strings.Cut(addr, ":")
			c := newClient(t, addr)
			defer c.conn.Close()
			sending := make(chan struct{})
			go func() { defer close(sending); c.run(func() int { return 0 }) }()
			for range 3 {
				old := livingWorkers(dir)
				p.Signal(syscall.SIGHUP)
				runtimetest.Eventually(t, "other workers", func() bool {
					now := livingWorkers(dir)
					return len(now) == workers && !slices.ContainsFunc(now, func(pid int) bool { return slices.Contains(old, pid) })
				})
				before := c.answered()
				runtimetest.Eventually(t, "answers after the reload", func() bool { return c.answered() > before+100 })
			}
			c.halt()
			<-sending
			runtimetest.Eventually(t, "every answer", func() bool { return c.answered() == int(c.sent) })
			if _, dropped := kernel(t, port); dropped != 0 {
				t.Errorf("the kernel has dropped %d datagrams", dropped)
			}
			c.conn.Close()
			<-c.done
			for seq, n := range c.got {
				if n != 1 {
					t.Errorf("datagram %d was answered %d times", seq, n)
				}
			}
			t.Logf("sent %d, answered %d", c.sent, len(c.got))
			p.Signal(syscall.SIGTERM)
			if code := p.Wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// TestTerminate: SIGTERM under load: what a worker has read it answers, and the exit code is 0.
func TestTerminate(t *testing.T) {
	dir := t.TempDir()
	p := runtimetest.Start(t, []string{recordsVar + "=" + dir}, "-addr", "127.0.0.1:0", "-workers", "2")
	c, err := net.Dial("udp", p.Await(`^udp://(\S+)`)[1])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(runtimetest.Patience))
	b := make([]byte, 100)
	for i := range 100 {
		fmt.Fprint(c, i)
		if n, err := c.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), fmt.Sprint(i, " echo/")) {
			t.Fatalf("%q, %v", b[:n], err)
		}
	}
	for i := range 50 { // whoever reads them answers
		fmt.Fprint(c, 100+i)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	var took, answered []uint64
	for _, n := range readRecords(t, dir, "took") {
		took = append(took, n...)
	}
	for _, n := range readRecords(t, dir, "answered") {
		answered = append(answered, n...)
	}
	slices.Sort(took)
	slices.Sort(answered)
	if !slices.Equal(took, answered) {
		t.Errorf("took %d, answered %d", len(took), len(answered))
	}
}

// TestChaos: the program harms itself, and loses nothing that it should not.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two seconds")
	}
	examplestest.Chaos(t, "-addr", "127.0.0.1:0")
}
