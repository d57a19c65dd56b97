package listen

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor/internal/testkit"
)

// A worker that accepts itself and is out of descriptors, or refused by a policy, waits in Accept.
// It logs that once, and once when it is over; the server gets no error.
func TestSharedOutOfDescriptors(t *testing.T) {
	log := make(testkit.Log, 100)
	ls := New(Config{Logger: slog.New(log)})
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, errs := range [][]error{{unix.EMFILE, unix.ENFILE, unix.EMFILE}, {unix.EPERM}} {
		ln := newDirectListener(ls, &failing{tcp, errs}, tcp.Addr(), 1, "")
		testkit.Dial(t, tcp.Addr())
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		log.Next(t, "listener cannot accept")
		log.Next(t, "listener accepts again")
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
	log.Next(t, "listener cannot accept")
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
