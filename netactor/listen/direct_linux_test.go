package listen

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// logLines is what a log has written, line by line.
type logLines chan string

func (l logLines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

// next waits for the next line that has text.
func (l logLines) next(text string) {
	for !strings.Contains(<-l, text) {
	}
}

// A worker that accepts itself and is out of descriptors, or refused by a policy, waits in Accept.
// It logs that once, and once when it is over; the server gets no error.
func TestSharedOutOfDescriptors(t *testing.T) {
	log := make(logLines, 100)
	ls := New(Config{Logger: slog.New(slog.NewTextHandler(log, nil))})
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, errs := range [][]error{{unix.EMFILE, unix.ENFILE, unix.EMFILE}, {unix.EPERM}} {
		ln := newDirectListener(ls, &failing{tcp, errs}, tcp.Addr(), 1, "")
		client, err := net.Dial("tcp", tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		log.next("listener cannot accept")
		log.next("listener accepts again")
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
	log.next("listener cannot accept")
	_ = waits.Close()
	if err := <-accepted; err == nil {
		t.Error("accepted by a closed listener")
	}
}

// failing is a listener whose Accept returns a given error.
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
