package fdipc_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

// The receiver's descriptor table is full: the handles are refused and come back; the frame is not
// delivered in part; the Conn lives. In a child, whose limit can be set.
func TestReceiverOutOfFiles(t *testing.T) {
	back := make(chan *fdipc.Handle, 64)
	claimed := make(chan bool, 64)
	got := make(chan uint64, 1)
	c := spawn(t, fdipc.Config{
		Handler: func(_ *fdipc.Conn, f *fdipc.Frame) {
			if f.Kind == kindCount {
				got <- f.Target
			}
		},
		Resolved: func(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
			if o == fdipc.Claimed {
				claimed <- true
				return
			}
			back <- h
		},
	}, map[string]string{"ROLE": "worker", "MARK": "1"})
	count := func() uint64 {
		if err := c.Send(context.Background(), &fdipc.Frame{Kind: kindCount}); err != nil {
			t.Fatal(err)
		}
		return wait(t, "count", got)
	}
	count() // it is up
	var old unix.Rlimit
	// Room for 20 descriptors and no more: those of the frame below do not fit.
	if err := unix.Prlimit(c.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 20, Max: 4096}, &old); err != nil {
		t.Skip(err)
	}
	cs, hs := clients(t, 30)
	if err := c.Send(context.Background(), &fdipc.Frame{Kind: kindConn, Handles: slices.Clone(hs)}); err != nil {
		t.Fatal(err)
	}
	for range hs {
		if h := wait(t, "refusal", back); h.Reason() != fdipc.ReasonNoFiles {
			t.Errorf("reason %d", h.Reason())
		}
	}
	if err := unix.Prlimit(c.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 4096, Max: 4096}, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(context.Background(), &fdipc.Frame{Kind: kindConn, Handles: hs}); err != nil {
		t.Fatal(err)
	}
	for range hs {
		wait(t, "claim", claimed)
	}
	readAll(t, cs)
	for i, cl := range cs {
		if string(cl.got) != "1" {
			t.Errorf("client %d got %q", i, cl.got)
		}
	}
}

// More descriptors in flight than the user may have: sending waits and goes on. Root is exempt, so
// this runs as nobody.
func TestTooManyInFlight(t *testing.T) {
	if os.Getenv("FDIPC_NOBODY") == "" {
		if os.Getuid() != 0 {
			t.Skip("needs root to become another user")
		}
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		// A copy that nobody may execute from where it lies.
		dir, err := os.MkdirTemp("", "fdipc") //nolint:usetesting // t.TempDir is closed to other users
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		_ = os.Chmod(dir, 0o755)
		bin, err := os.ReadFile(exe)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "test"), bin, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(filepath.Join(dir, "test"), "-test.run", "^TestTooManyInFlight$", "-test.v")
		cmd.Env = append(os.Environ(), "FDIPC_NOBODY=1")
		cmd.Dir = "/"
		cmd.SysProcAttr = nobody
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v: %s", err, out)
		}
		t.Logf("%s", out)
		return
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 40, Max: 4096}); err != nil {
		t.Fatal(err)
	}
	gate, entered := make(chan struct{}), make(chan struct{}, 300)
	claimed := make(chan fdipc.Outcome, 300)
	a, _ := pair(t,
		fdipc.Config{Handler: ignore, Credits: 300, ClaimTimeout: -1, Resolved: func(_ *fdipc.Conn, _ *fdipc.Handle, o fdipc.Outcome) { claimed <- o }},
		fdipc.Config{Credits: 300, Handler: func(_ *fdipc.Conn, f *fdipc.Frame) {
			entered <- struct{}{}
			<-gate
			for _, h := range f.Handles {
				_ = h.Claim()
				h.Close()
			}
		}})
	src, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	// The same descriptor many times: in flight they count, in the table they do not. It is closed
	// once.
	for i := range 100 {
		if i == 1 {
			// From here on nothing is received: our own table has room for 40 too, and a full one
			// refuses.
			wait(t, "first frame", entered)
		}
		h, err := fdipc.HandleOf(sharedFile{src})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Send(context.Background(), &fdipc.Frame{Kind: 0x40, Handles: []*fdipc.Handle{h}}); err != nil {
			t.Fatal(err)
		}
	}
	retried := make(chan struct{})
	go func() { // it comes to that: 100 are to go, 40 may be in flight
		for tick := time.NewTicker(time.Millisecond); a.Stats().Retried == 0; <-tick.C {
		}
		close(retried)
	}()
	wait(t, "refusal by the kernel", retried)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 4096, Max: 4096}); err != nil {
		t.Fatal(err)
	}
	close(gate)
	for range 100 {
		if o := wait(t, "outcome", claimed); o != fdipc.Claimed {
			t.Fatal(o)
		}
	}
	t.Logf("retried %d times", a.Stats().Retried)
}

// sharedFile lends its descriptor: closing it does nothing.
type sharedFile struct{ f *os.File }

func (s sharedFile) SyscallConn() (syscallRawConn, error) { return s.f.SyscallConn() }

func (s sharedFile) Close() error { return nil }

// A small frame on a lane in use costs no allocation, on either side.
func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	got := make(chan struct{}, 1)
	a, _ := pair(t, fdipc.Config{Handler: ignore}, fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) { got <- struct{}{} }})
	ctx := context.Background()
	f := &fdipc.Frame{Kind: 0x40, Lane: fdipc.Data, Trace: fdipc.TraceContext{1}, Payload: make([]byte, 64)}
	n := testing.AllocsPerRun(2000, func() {
		if err := a.Send(ctx, f); err != nil {
			t.Fatal(err)
		}
		<-got
	})
	if n > 0 {
		t.Errorf("%v allocations a frame", n)
	}
}
