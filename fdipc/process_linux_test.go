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
	case !ok && os.Getenv(imageVar) != "":
		runExecMaster(os.Getenv(imageVar))
	case !ok:
		os.Exit(m.Run())
	}
	roles[env["ROLE"]](f, env)
}

var roles = map[string]func(*os.File, map[string]string){
	"worker":     func(f *os.File, env map[string]string) { (&worker{env: env}).run(f) },
	"dispatcher": func(f *os.File, env map[string]string) { (&dispatcher{worker: worker{env: env}}).run(f) },
	"list":       listDescriptors,
	"starved":    starved,
	"count":      count,
	"exec":       execChild,
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
		wait(t, "exit of a child", ch.exited)
		wait(t, "end of its Conn", c.Done())
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
			_ = unix.Fstat(conn.(interface{ Fd() int }).Fd(), &st)
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
			Resolved: func(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
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
			c.conn.SetDeadline(time.Now().Add(patience))
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
