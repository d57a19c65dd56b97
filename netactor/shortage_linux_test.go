package netactor

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// told is a log that hands its messages to a test.
type told chan string

func (l told) Enabled(context.Context, slog.Level) bool { return true }
func (l told) Handle(_ context.Context, r slog.Record) error {
	l <- r.Message
	return nil
}
func (l told) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l told) WithGroup(string) slog.Handler      { return l }

// next waits for the next message that begins so.
func (l told) next(t *testing.T, begin string) {
	t.Helper()
	ctx := testContext(t)
	for {
		select {
		case m := <-l:
			if strings.HasPrefix(m, begin) {
				return
			}
		case <-ctx.Done():
			t.Fatalf("not told: %s", begin)
		}
	}
}

// noDescriptors leaves this process without any, until the function that it returns is called.
func noDescriptors(t *testing.T) (over func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	free, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0) // the lowest number that is free
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(free)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free), Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	over = func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &old) }
	t.Cleanup(over)
	return over
}

// A master that is out of descriptors opens, sends and watches sockets when there are some again: it says so
// once when it begins and once when it is over, and whoever listens waits.
func TestMasterOutOfDescriptors(t *testing.T) {
	for _, p := range []Policy{RoundRobin, Shared, ReusePort} {
		t.Run("to open one, "+p.String(), func(t *testing.T) {
			tr := newTree(t, true)
			log := make(told, 100)
			tr.table.cfg.Logger = slog.New(log)
			w := tr.worker(0)
			r := loopback
			r.Policy = p
			over := noDescriptors(t)
			listened := make(chan error, 1)
			go func() {
				ln, err := w.listen(r)
				if err == nil {
					go serveID(ln, "a")
				}
				listened <- err
			}()
			log.next(t, "the master is short of")
			over()
			wait(t, listened)
			log.next(t, "the master has what sockets take again")
			if s := ask1(t, "tcp", tr.table.Sockets()[0].Address); s != "a" {
				t.Errorf("answer %q", s)
			}
			if len(log) > 0 {
				t.Errorf("told too: %s", <-log)
			}
			tr.table.mu.Lock()
			defer tr.table.mu.Unlock()
			if tr.table.watcher == nil {
				t.Error("the socket is not watched")
			}
		})
	}
	t.Run("to send one to the listener process", func(t *testing.T) {
		tr := newTree(t, true)
		log := make(told, 100)
		tr.table.cfg.Logger = slog.New(log)
		w := tr.worker(0)
		ln := w.mustListen(loopback)
		go serveID(ln, "a")
		tr.joined(1)
		tr.killListener()
		over := noDescriptors(t)
		tr.startListener()
		log.next(t, "the master is short of")
		over()
		if s := ask1(t, "tcp", ln.Addr().String()); s != "a" {
			t.Errorf("answer %q", s)
		}
	})
	t.Run("for longer than a worker waits", func(t *testing.T) {
		tr := newTree(t, true)
		ctx, cancel := context.WithCancel(testContext(t))
		log := make(told, 100)
		tr.table.cfg.Logger = slog.New(log)
		w := tr.worker(0)
		over := noDescriptors(t)
		listened := make(chan error, 1)
		go func() {
			_, err := w.ls.Listen(ctx, loopback)
			listened <- err
		}()
		log.next(t, "the master is short of")
		cancel()
		if err := <-listened; err == nil {
			t.Error("it listens")
		}
		over()
		until(t, "nothing to be open", func() bool { return len(tr.table.Sockets()) == 0 && !tr.table.isPending(1) })
	})
}

// failing is a listener whose Accept fails as it is told.
type failing struct {
	net.Listener
	errs []error
}

func (l *failing) Accept() (net.Conn, error) {
	if len(l.errs) == 0 {
		return l.Listener.Accept()
	}
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", err)}
}

// A worker that accepts itself and is out of descriptors, or refused by a policy, waits in Accept, says so once, and
// once when it is over; what a server would make of the error it need not know.
func TestSharedOutOfDescriptors(t *testing.T) {
	log := make(told, 100)
	ls := NewListeners(ListenersConfig{Logger: slog.New(log)})
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, errs := range [][]error{{unix.EMFILE, unix.ENFILE, unix.EMFILE}, {unix.EPERM}} {
		ln := newDirectListener(ls, &failing{tcp, errs}, tcp.Addr(), 1, "")
		dial(t, tcp.Addr())
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		log.next(t, "listener cannot accept")
		log.next(t, "listener accepts again")
		if len(log) > 0 {
			t.Errorf("told too: %s", <-log)
		}
	}
	broken := newDirectListener(ls, &failing{tcp, []error{unix.EBADF}}, tcp.Addr(), 1, "")
	if _, err := broken.Accept(); !errors.Is(err, unix.EBADF) {
		t.Errorf("of another error: %v", err)
	}
	waits := newDirectListener(ls, &failing{tcp, slices.Repeat([]error{unix.EMFILE}, 100)}, tcp.Addr(), 1, "")
	accepted := make(chan error, 1)
	go func() { _, err := waits.Accept(); accepted <- err }()
	log.next(t, "listener cannot accept")
	_ = waits.Close()
	if err := <-accepted; err == nil {
		t.Error("accepted by a closed listener")
	}
}
