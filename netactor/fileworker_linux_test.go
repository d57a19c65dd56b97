package netactor

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// queueLingering connects to a Unix listener, sends it a TCP connection whose last close waits for an hour, and leaves.
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

// TestQueuedInListener: what a client has queued in a Unix listener, and has its close wait, holds up nothing: neither who
// closes the listener, nor its address.
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
				until(t, "the socket", func() bool {
					tr.table.mu.Lock()
					defer tr.table.mu.Unlock()
					return !tr.table.busy && unix.Shutdown(tr.table.sockets[socketKey{1, 0}].fd, unix.SHUT_RDWR) == nil
				})
			},
			"all removed": func(tr *tree) { tr.table.Close() },
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				tr := newTree(t, true)
				r := Request{Network: "unix", Address: address(t), Policy: Shared}
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

// hangFile has a path's file system not answer until the result is called.
func hangFile(t *testing.T, path string) (answer func()) {
	held, end := make(chan struct{}), make(chan struct{})
	files.do(path, func() { close(held); <-end })
	<-held
	answer = sync.OnceFunc(func() { close(end) })
	t.Cleanup(answer)
	return answer
}

// reopening waits until a socket is being opened again.
func (tr *tree) reopening(key socketKey) {
	until(tr.t, "it to be opened again", func() bool {
		tr.table.mu.Lock()
		defer tr.table.mu.Unlock()
		if tr.table.busy {
			return false
		}
		s := tr.table.sockets[key]
		return s != nil && s.reopening
	})
}

// TestMendBesideHungFile: while the file system of one Unix listener does not answer, another is opened, mended and removed;
// the one comes again when it does answer, and who has asked for it meanwhile gets it then.
func TestMendBesideHungFile(t *testing.T) {
	tr := newTree(t, false)
	dir := t.TempDir()
	hung, healthy := filepath.Join(dir, "hung"), filepath.Join(dir, "healthy")
	shared := func(path string) Request { return Request{Network: "unix", Address: path, Policy: Shared} }
	for i, path := range []string{hung, healthy} {
		if _, err := tr.table.Open(testContext(t), path, shared(path)); err != nil {
			t.Fatal(i, err)
		}
	}
	answer := hangFile(t, hung)
	tr.shutDown(socketKey{1, 0})
	tr.reopening(socketKey{1, 0})
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
	tr.shutDown(socketKey{2, 0})
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

// TestAskedWhileNotMended: who asks for a Unix listener that cannot be opened again is told why.
func TestAskedWhileNotMended(t *testing.T) {
	tr := newTree(t, true)
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := Request{Network: "unix", Address: filepath.Join(dir, "s"), Policy: Shared}
	if _, err := tr.table.Open(testContext(t), "l", r); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	answer := hangFile(t, r.Address)
	tr.shutDown(socketKey{1, 0})
	tr.reopening(socketKey{1, 0})
	asked := make(chan error, 1)
	w := tr.worker(0)
	go func() {
		_, err := w.listen(r)
		asked <- err
	}()
	until(t, "the question", func() bool {
		tr.table.mu.Lock()
		defer tr.table.mu.Unlock()
		return !tr.table.busy && len(tr.table.sockets[socketKey{1, 0}].waiting) == 1
	})
	answer()
	if err := <-asked; !errors.Is(err, syscall.ENOENT) {
		t.Errorf("error %v, want ENOENT", err)
	}
}

// TestShortOfSocketsUntilOpen: the master says that it has what sockets take again when the one that waited is open, not when it
// is being opened.
func TestShortOfSocketsUntilOpen(t *testing.T) {
	tr := newTree(t, true)
	log := make(told, 100)
	tr.table.cfg.Logger = slog.New(log)
	w := tr.worker(0)
	r := Request{Network: "unix", Address: filepath.Join(t.TempDir(), "s")}
	over := noDescriptors(t)
	listened := make(chan error, 1)
	go func() {
		_, err := w.listen(r)
		listened <- err
	}()
	log.next(t, "the master is short of")
	answer := hangFile(t, r.Address)
	over()
	until(t, "the next try", func() bool {
		files.mu.Lock()
		defer files.mu.Unlock()
		return len(files.queued[r.Address]) == 1
	})
	tr.quiet()
	select {
	case s := <-log:
		t.Errorf("told too early: %s", s)
	default:
	}
	answer()
	log.next(t, "the master has what sockets take again")
	wait(t, listened)
}

// TestQueuesInOrder: what is done with one path is done one after the other, in order.
func TestQueuesInOrder(t *testing.T) {
	var got []int // without a lock: the race detector is to see
	end := make(chan struct{})
	answer := hangFile(t, "/a")
	for i := range 20 {
		files.do("/a", func() { got = append(got, i) })
	}
	files.do("/a", func() { close(end) })
	other := make(chan struct{})
	files.do("/b", func() { close(other) })
	<-other
	answer()
	<-end
	if len(got) != 20 || !slices.IsSorted(got) {
		t.Errorf("order %v", got)
	}
}

// TestFalseBrokenWords: words that a socket is broken, which it is not, have each next one wait for longer too.
func TestFalseBrokenWords(t *testing.T) {
	tr := newTree(t, true)
	if _, err := tr.table.Open(testContext(t), "l", loopback); err != nil {
		t.Fatal(err)
	}
	tr.quiet()
	tr.table.repair(1)
	r := tr.table.repairs[1]
	for _, want := range []time.Duration{2 * firstRepair, 4 * firstRepair, 8 * firstRepair} {
		r.last = r.last.Add(-r.pause) // the pause is over
		tr.table.repair(1)
		if r.pause != want {
			t.Errorf("pause %v, want %v", r.pause, want)
		}
	}
}
