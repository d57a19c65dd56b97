package netactor_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/inspect"
	"github.com/coppice-go/coppice/netactor/internal/socket"
)

// queueLingering connects to a Unix listener, sends it a TCP connection whose last close waits for
// an hour, and leaves.
func queueLingering(t *testing.T, name string) {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() }) // which ends the wait
	tcp, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(tcp)
	client, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(client)
	err = errors.Join(unix.Connect(tcp, &unix.SockaddrInet4{Port: ln.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}), unix.SetNonblock(tcp, true))
	for err == nil { // until there is no room
		_, err = unix.Write(tcp, make([]byte, 1<<16))
	}
	if err != unix.EAGAIN {
		t.Fatal(err)
	}
	if err := errors.Join(
		unix.Connect(client, &unix.SockaddrUnix{Name: name}),
		unix.Sendmsg(client, []byte("x"), unix.UnixRights(tcp), nil, 0),
		unix.SetsockoptLinger(tcp, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600}),
	); err != nil {
		t.Fatal(err)
	}
}

// TestQueuedInListener: a TCP connection whose close waits, queued by a client in a Unix listener,
// blocks neither a caller that closes the listener, nor its address.
func TestQueuedInListener(t *testing.T) {
	for _, name := range []string{"path", "@"} {
		address := func(t *testing.T) string {
			if name == "@" {
				return fmt.Sprintf("@coppice-%d-%s", os.Getpid(), t.Name())
			}
			return filepath.Join(t.TempDir(), "s")
		}
		for what, end := range map[string]func(tr *tree){
			"removed": func(tr *tree) { tr.table.Remove(1) },
			"stopped": func(tr *tree) { tr.table.StopOwner("l") },
			"shut down": func(tr *tree) { // without a copy, whose close would wait in place of the table's
				until(t, "the socket", func() (ok bool) {
					inspect.LookAt(tr.table, func(v inspect.TableView) {
						s, there := socketOf(v, 1, 0)
						ok = there && unix.Shutdown(s.FD, unix.SHUT_RDWR) == nil
					})
					return ok
				})
			},
			"all removed": func(tr *tree) { tr.table.Close() },
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				tr := newTree(t, true)
				r := netactor.Request{Network: "unix", Address: address(t), Policy: netactor.Shared}
				if _, err := tr.table.Open(testContext(t), "l", r); err != nil {
					t.Fatal(err)
				}
				queueLingering(t, r.Address)
				ended := make(chan struct{})
				go func() { end(tr); close(ended) }()
				select {
				case <-ended:
				case <-testContext(t).Done():
					t.Fatal("the table waits for what is queued")
				}
				if what == "all removed" {
					return
				}
				if what != "shut down" {
					if _, err := tr.table.Open(testContext(t), "next", r); err != nil {
						t.Fatal(err)
					}
				}
				until(t, "it to listen", func() bool {
					c, err := net.Dial("unix", r.Address)
					if err == nil {
						c.Close()
					}
					return err == nil
				})
				if _, err := tr.table.Open(testContext(t), "other", loopback); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// hangFile makes the file system of a path not answer until the result is called.
func hangFile(t *testing.T, path string) (answer func()) {
	held, end := make(chan struct{}), make(chan struct{})
	socket.Files.Do(path, func() { close(held); <-end })
	<-held
	answer = sync.OnceFunc(func() { close(end) })
	t.Cleanup(answer)
	return answer
}

// reopening waits until a socket is being opened again.
func (tr *tree) reopening(number uint64, index int) {
	until(tr.t, "it to be opened again", func() bool {
		s, ok := socketOf(tr.look(), number, index)
		return ok && s.Reopening
	})
}

// TestRepairBesideHungFile: while the file system of one Unix listener does not answer, another
// listener is opened, repaired and removed. The first one is opened when the file system answers,
// and a worker that has asked for it gets it then.
func TestRepairBesideHungFile(t *testing.T) {
	tr := newTree(t, false)
	dir := t.TempDir()
	hung, healthy := filepath.Join(dir, "hung"), filepath.Join(dir, "healthy")
	shared := func(path string) netactor.Request {
		return netactor.Request{Network: "unix", Address: path, Policy: netactor.Shared}
	}
	for i, path := range []string{hung, healthy} {
		if _, err := tr.table.Open(testContext(t), path, shared(path)); err != nil {
			t.Fatal(i, err)
		}
	}
	answer := hangFile(t, hung)
	tr.shutDown(1)
	tr.reopening(1, 0)
	asked := make(chan error, 1)
	w := tr.worker(0)
	go func() {
		ln, err := w.listen(shared(hung))
		if err == nil {
			go serveID(ln, "hung")
		}
		asked <- err
	}()
	go serveID(w.mustListen(shared(healthy)), "healthy")
	tr.shutDown(2)
	until(t, "an answer", func() bool { s, err := tryAsk("unix", healthy); return err == nil && s == "healthy" })
	if _, err := tr.table.Open(testContext(t), "new", shared(filepath.Join(dir, "new"))); err != nil {
		t.Error(err)
	}
	select {
	case err := <-asked:
		t.Errorf("answered before the file system: %v", err)
	default:
	}
	answer()
	wait(t, asked)
	until(t, "an answer", func() bool { s, err := tryAsk("unix", hung); return err == nil && s == "hung" })
}

// TestListenWhileNotRepaired: a worker that asks for a Unix listener that cannot be opened again
// gets the reason.
func TestListenWhileNotRepaired(t *testing.T) {
	tr := newTree(t, true)
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := netactor.Request{Network: "unix", Address: filepath.Join(dir, "s"), Policy: netactor.Shared}
	if _, err := tr.table.Open(testContext(t), "l", r); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	answer := hangFile(t, r.Address)
	tr.shutDown(1)
	tr.reopening(1, 0)
	asked := make(chan error, 1)
	w := tr.worker(0)
	go func() {
		_, err := w.listen(r)
		asked <- err
	}()
	until(t, "the question", func() bool {
		s, ok := socketOf(tr.look(), 1, 0)
		return ok && s.Waiting == 1
	})
	answer()
	if err := <-asked; !errors.Is(err, syscall.ENOENT) {
		t.Errorf("error %v, want ENOENT", err)
	}
}

// TestShortOfSocketsUntilOpen: the master logs the end of a shortage when the socket that waited is
// open, and not while it is being opened.
func TestShortOfSocketsUntilOpen(t *testing.T) {
	log := make(logLines, 100)
	tr := newTree(t, true, func(tr *tree) { tr.tableCfg.Logger = slog.New(log) })
	w := tr.worker(0)
	r := netactor.Request{Network: "unix", Address: filepath.Join(t.TempDir(), "s")}
	over := noDescriptors(t)
	listened := make(chan error, 1)
	go func() {
		_, err := w.listen(r)
		listened <- err
	}()
	log.Next(t, "the master is short of")
	answer := hangFile(t, r.Address)
	over()
	until(t, "the next try", func() bool { return inspect.QueuedFiles(r.Address) == 1 })
	tr.quiet()
	select {
	case s := <-log:
		t.Errorf("told too early: %s", s)
	default:
	}
	answer()
	log.Next(t, "the master has what sockets take again")
	wait(t, listened)
}
