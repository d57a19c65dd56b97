package fdipc_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

// imageVar is the environment variable of a process of TestExec: "start:" and how often it is to
// exec itself, or in a later image "state:" and the descriptor of its state.
const imageVar = "FDIPC_TEST_IMAGE"

// execPatience is that of a process that starts anew again and again, perhaps on a busy machine.
const execPatience = time.Minute

func init() {
	if os.Getenv(imageVar) != "" {
		// The children's parent is the thread that forks them: it alone may exec, and after that it
		// is the main thread, which must be the one that execs again. The main goroutine is it.
		runtime.LockOSThread()
	}
}

const (
	kindStop   fdipc.Kind = 0x50 // send no more but kindLast
	kindLast   fdipc.Kind = 0x51 // the last frame of the lane; Target is how many came before it
	kindReport fdipc.Kind = 0x52 // what the child has counted
)

// flow is one end of a Conn under load, and what it has counted. It is what the image before knew.
type flow struct {
	Sent, Got                          [2]uint64 // frames by lane
	Bad                                int       // that came out of order or damaged
	Handles, Claimed, Back, HandlesGot int       // sent: all, claimed, back; received
	Last                               int       // lanes that have ended
	Pid, PidFD                         int
	State                              []byte
	FDs                                []int

	mu     sync.Mutex
	conn   *fdipc.Conn
	change chan struct{}
	came   int   // frames, in this image
	first  int64 // when the first one came
	report *flow
	stop   context.CancelFunc // ends the senders
	send   sync.WaitGroup
}

func (w *flow) config() fdipc.Config {
	w.change = make(chan struct{}, 1)
	return fdipc.Config{Suspendable: true, Handler: w.handle, Resolved: w.resolved}
}

func (w *flow) locked(f func()) {
	w.mu.Lock()
	f()
	w.mu.Unlock()
	signal(w.change)
}

// until waits until ok, which is called with the lock held.
func (w *flow) until(what string, ok func() bool) {
	for {
		w.mu.Lock()
		done := ok()
		w.mu.Unlock()
		if done {
			return
		}
		select {
		case <-w.change:
		case <-w.conn.Done():
			fail("%s of %d: the Conn has ended: %v", what, w.Pid, w.conn.Err())
		case <-time.After(execPatience):
			fail("still no %s of %d: %+v\n%s", what, w.Pid, w.conn.Stats(), stacks())
		}
	}
}

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(5)
}

func (w *flow) handle(c *fdipc.Conn, f *fdipc.Frame) {
	switch f.Kind {
	case kindStop:
		go w.finish()
		return
	case kindReport:
		w.locked(func() {
			w.report = new(flow)
			if err := json.Unmarshal(f.Payload, w.report); err != nil {
				fail("report: %v", err)
			}
		})
		return
	case kindLast:
		w.locked(func() {
			w.Last++
			if w.Got[f.Lane] != f.Target {
				w.Bad++
			}
		})
		return
	}
	n := len(f.Payload) - 4
	good := n >= 8 && crc32.ChecksumIEEE(f.Payload[:n]) == binary.LittleEndian.Uint32(f.Payload[n:])
	handles := 0
	for _, h := range f.Handles {
		name := h.Name()
		r, err := h.File()
		if errors.Is(err, fdipc.ErrRevoked) {
			continue
		}
		id := make([]byte, len(name)+1)
		if err == nil {
			n, _ := r.Read(id)
			r.Close()
			id = id[:n]
		}
		good = good && string(id) == name
		handles++
	}
	w.locked(func() {
		if w.came++; w.came == 1 {
			w.first = monotonic()
		}
		if !good || binary.LittleEndian.Uint64(f.Payload) != w.Got[f.Lane] {
			w.Bad++
		}
		w.Got[f.Lane]++
		w.HandlesGot += handles
	})
}

func (w *flow) resolved(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
	w.locked(func() {
		if o == fdipc.Claimed {
			w.Claimed++
		} else {
			w.Back++
		}
	})
	h.Close()
}

// start begins to send, on both lanes.
func (w *flow) start() {
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	for l := range fdipc.Lane(2) {
		w.send.Go(func() {
			for w.sendOne(ctx, l) {
			}
		})
	}
}

// sendOne sends the next frame of a lane, unless ctx ends before.
func (w *flow) sendOne(ctx context.Context, l fdipc.Lane) bool {
	w.mu.Lock()
	n := w.Sent[l]
	w.mu.Unlock()
	size := int(n % 300)
	if n%100 == 99 {
		size = 300 << 10
	}
	f := &fdipc.Frame{Kind: kind, Lane: l, Payload: modelPayload(n, size)}
	if n%8 == 7 {
		id := fmt.Sprintf("%d/%v/%d", os.Getpid(), l, n)
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			fail("pipe: %v", err)
		}
		_, _ = unix.Write(p[1], []byte(id))
		unix.Close(p[1])
		f.Handles = []*fdipc.Handle{fdipc.HandleFD(p[0]).Named(id)}
	}
	if err := w.conn.Send(ctx, f); err != nil {
		for _, h := range f.Handles {
			h.Close()
		}
		if ctx.Err() == nil {
			fail("send: %v", err)
		}
		return false
	}
	w.locked(func() {
		w.Sent[l]++
		w.Handles += len(f.Handles)
	})
	return true
}

// finish ends the senders, says how many frames there were, and waits until as many have come as
// the peer says, and each handle is claimed or back.
func (w *flow) finish() {
	w.stop()
	w.send.Wait()
	for l := range fdipc.Lane(2) {
		if err := w.conn.Send(context.Background(), &fdipc.Frame{Kind: kindLast, Lane: l, Target: w.Sent[l]}); err != nil {
			fail("last: %v", err)
		}
	}
	w.until("last frames", func() bool { return w.Last == 2 && w.Claimed+w.Back == w.Handles })
	if w.Pid == 0 { // a child
		w.mu.Lock()
		b, err := json.Marshal(w)
		w.mu.Unlock()
		if err == nil {
			err = w.conn.Send(context.Background(), &fdipc.Frame{Kind: kindReport, Payload: b})
		}
		if err != nil {
			fail("report: %v", err)
		}
	}
}

// execChild is a child of the process that execs itself.
func execChild(f *os.File, _ map[string]string) {
	w := new(flow)
	cfg := w.config()
	cfg.Ready = func(c *fdipc.Conn) { w.conn = c }
	cfg.Handler = func(c *fdipc.Conn, f *fdipc.Frame) {
		if f.Kind == kindCount { // begin
			w.start()
			return
		}
		w.handle(c, f)
	}
	c, err := fdipc.New(f, cfg)
	if err != nil {
		fail("child: %v", err)
	}
	<-c.Done()
}

func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

// execMaster is a process that execs itself under the load of two children.
type execMaster struct {
	Execs, Want int
	Kids        []*flow
	Files       int   // open before the load
	Suspended   int64 // when this image began to suspend
	Gaps        []int64
	Suspending  []int64
	StateBytes  int // the largest state of a Conn
	Stopped     int // pid of the child that was stopped for the exec
}

func runExecMaster(how string) {
	m := &execMaster{}
	verb, n, _ := strings.Cut(how, ":")
	number, _ := strconv.Atoi(n)
	_ = os.Unsetenv(imageVar)
	if verb == "start" {
		m.Want = number
		m.begin()
	} else {
		m.goOn(number)
	}
	for _, w := range m.Kids {
		w.until("frames", func() bool { return w.came >= 30 })
	}
	if m.Execs > 0 {
		first := m.Kids[0].first
		for _, w := range m.Kids {
			first = min(first, w.first)
		}
		m.Gaps = append(m.Gaps, first-m.Suspended)
	}
	if m.Execs < m.Want {
		m.exec()
	}
	m.end()
}

func (m *execMaster) begin() {
	for range 2 {
		local, remote, err := fdipc.Socketpair()
		if err != nil {
			fail("%v", err)
		}
		w := &flow{PidFD: -1}
		ready := make(chan struct{})
		cfg := w.config()
		cfg.Ready = func(*fdipc.Conn) { close(ready) }
		rc, _ := remote.SyscallConn()
		_ = rc.Control(func(fd uintptr) {
			w.Pid, err = syscall.ForkExec("/proc/self/exe", os.Args[:1], &syscall.ProcAttr{
				Env: append(os.Environ(), fdipc.Environ(3, map[string]string{"ROLE": "exec"})...), Files: []uintptr{0, 1, 2, fd},
				Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, PidFD: &w.PidFD},
			})
		})
		if err != nil {
			fail("fork: %v", err)
		}
		remote.Close()
		if w.conn, err = fdipc.New(local, cfg); err != nil {
			fail("%v", err)
		}
		<-ready
		m.Kids = append(m.Kids, w)
	}
	m.Files = len(openThings())
	for _, w := range m.Kids {
		if err := w.conn.TrySend(&fdipc.Frame{Kind: kindCount}); err != nil {
			fail("begin: %v", err)
		}
		w.start()
	}
}

// exec leaves everything to the next image.
func (m *execMaster) exec() {
	if m.Execs%5 == 2 {
		m.Stopped = m.Kids[m.Execs%2].Pid
		_ = unix.Kill(m.Stopped, unix.SIGSTOP)
	}
	ctx, cancel := context.WithTimeout(context.Background(), execPatience)
	defer cancel()
	m.Execs++
	m.Suspended = monotonic()
	var keep []int
	for _, w := range m.Kids {
		var err error
		if w.State, w.FDs, err = w.conn.Suspend(ctx); err != nil {
			fail("%v\n%s", err, stacks())
		}
		m.StateBytes = max(m.StateBytes, len(w.State))
		keep = append(append(keep, w.FDs...), w.PidFD)
	}
	for _, w := range m.Kids {
		w.stop()
		w.send.Wait()
	}
	m.Suspending = append(m.Suspending, monotonic()-m.Suspended)
	b, err := json.Marshal(m)
	if err != nil {
		fail("%v", err)
	}
	fd, err := unix.MemfdCreate("state", unix.MFD_CLOEXEC)
	if err != nil {
		fail("memfd: %v", err)
	}
	if _, err := unix.Pwrite(fd, b, 0); err != nil {
		fail("memfd: %v", err)
	}
	for _, fd := range append(keep, fd) {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			fail("descriptor %d: %v", fd, err)
		}
	}
	err = syscall.Exec("/proc/self/exe", os.Args[:1], append(os.Environ(), fmt.Sprintf("%s=state:%d", imageVar, fd)))
	fail("exec: %v", err)
}

// goOn takes over from the image before.
func (m *execMaster) goOn(fd int) {
	f := os.NewFile(uintptr(fd), "state")
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	if err == nil {
		err = json.Unmarshal(b, m)
	}
	f.Close()
	if err != nil {
		fail("state: %v", err)
	}
	for _, w := range m.Kids {
		unix.CloseOnExec(w.PidFD)
		if w.conn, err = fdipc.Restore(w.State, w.FDs, w.config()); err != nil {
			fail("%v", err)
		}
		w.State, w.FDs = nil, nil
	}
	for _, w := range m.Kids {
		w.conn.Resume()
		w.start()
	}
	if m.Stopped != 0 {
		_ = unix.Kill(m.Stopped, unix.SIGCONT)
		m.Stopped = 0
	}
}

// openThings returns what is behind the open descriptors, each thing once: a lane that was full may
// still have a duplicate of its socket.
func openThings() []string {
	return slices.Compact(slices.Sorted(maps.Values(descriptors())))
}

// end compares what was sent with what has come.
func (m *execMaster) end() {
	files := 0
	for _, w := range m.Kids {
		if err := w.conn.Send(context.Background(), &fdipc.Frame{Kind: kindStop}); err != nil {
			fail("stop: %v", err)
		}
		w.finish()
		w.until("report", func() bool { return w.report != nil })
	}
	end := time.Now().Add(patience)
	for range time.Tick(time.Millisecond) { // copies are closed some milliseconds later
		if files = len(openThings()); files <= m.Files || time.Now().After(end) {
			break
		}
	}
	bad := ""
	frames, handles, back := uint64(0), 0, 0
	for _, w := range m.Kids {
		w.conn.Close()
		var status unix.WaitStatus
		if _, err := unix.Wait4(w.Pid, &status, 0, nil); err != nil || status != 0 {
			fail("wait: %v, status %#x", err, status)
		}
		r := w.report
		if r.Bad+w.Bad != 0 || r.Got != w.Sent || r.Sent != w.Got || r.HandlesGot != w.Claimed || w.HandlesGot != r.Claimed {
			there, _ := json.Marshal(r)
			here, _ := json.Marshal(w)
			bad += fmt.Sprintf("child %d: there %s, here %s; ", w.Pid, there, here)
		}
		frames += w.Sent[0] + w.Sent[1] + w.Got[0] + w.Got[1]
		handles += w.Handles + r.Handles
		back += w.Back + r.Back
	}
	if files > m.Files {
		bad += fmt.Sprintf("%d descriptors are open, %d before: %v", files, m.Files, openThings())
	}
	slices.Sort(m.Gaps)
	slices.Sort(m.Suspending)
	at := func(s []int64, p int) time.Duration {
		return time.Duration(s[min(len(s)*p/100, len(s)-1)]).Round(100 * time.Microsecond)
	}
	fmt.Printf("%d execs, %d frames and %d handles (%d back), gap p50 %v p99 %v, of that until all is suspended p50 %v p99 %v, largest state %d KiB\n",
		m.Execs, frames, handles, back, at(m.Gaps, 50), at(m.Gaps, 99), at(m.Suspending, 50), at(m.Suspending, 99), m.StateBytes>>10)
	if bad != "" {
		fail("%s", bad)
	}
	os.Exit(0)
}

// A process execs itself 20 times (5 in a short run, 1,000 in the soak) under the load of two
// children, one of which is stopped for every fifth exec. Frames and handles go in both directions
// on both lanes: what was sent has come, in order, and all descriptors are closed. The children
// live, though the death of their parent would kill them.
func TestExec(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(soak(300, 1800))*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe)
	execs := soak(20, 1000)
	if testing.Short() {
		execs = 5
	}
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=start:%d", imageVar, execs))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	t.Logf("%s", out)
	if err != nil || stderr.Len() > 0 {
		t.Errorf("%v\n%s", err, stderr.Bytes())
	}
}
