package notify

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// storingManager reads what a DescriptorStore sends.
type storingManager struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func newStoringManager(t *testing.T) *storingManager {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &storingManager{t, conn, path}
}

// read reads one message, and closes what came with it. Before the message it has + for each
// descriptor.
func (m *storingManager) read() string {
	b, oob := make([]byte, 4096), make([]byte, 4096)
	_ = m.conn.SetReadDeadline(time.Now().Add(patience))
	n, on, _, _, err := m.conn.ReadMsgUnix(b, oob)
	if err != nil {
		m.t.Error(err)
		return ""
	}
	came := ""
	if messages, err := unix.ParseSocketControlMessage(oob[:on]); err == nil {
		for i := range messages {
			fds, _ := unix.ParseUnixRights(&messages[i])
			for _, fd := range fds {
				unix.Close(fd)
				came += "+"
			}
		}
	}
	return came + strings.ReplaceAll(string(b[:n]), "\n", " ")
}

// skip reads all that has come.
func (m *storingManager) skip() {
	rc, err := m.conn.SyscallConn()
	if err != nil {
		m.t.Fatal(err)
	}
	_ = rc.Control(func(fd uintptr) {
		for err == nil {
			_, _, err = unix.Recvfrom(int(fd), make([]byte, 64), unix.MSG_DONTWAIT) // closes what comes with it
		}
	})
}

// reads reads n messages while f runs.
func (m *storingManager) reads(n int, f func()) (all []string) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range n {
			all = append(all, m.read())
		}
	}()
	f()
	<-done
	return all
}

// TestStore: what is stored comes with its name and its descriptor; what is dropped is gone from
// the service manager when Drop returns; a name is never there twice; beyond the room nothing is
// stored, and the log says so.
func TestStore(t *testing.T) {
	m := newStoringManager(t)
	var log bytes.Buffer
	s := NewDescriptorStore(slog.New(slog.NewTextHandler(&log, nil)), m.path, 2)
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	for _, step := range []struct {
		what func() bool
		want bool
		says []string
	}{
		{func() bool { return s.Keep("a", fd) }, true, []string{"+FDSTORE=1 FDPOLL=0 FDNAME=a"}},
		{func() bool { return s.Keep("b", fd) }, true, []string{"+FDSTORE=1 FDPOLL=0 FDNAME=b"}},
		{func() bool { return s.Keep("c", fd) }, false, nil},
		{func() bool { return s.Keep("b", fd) }, true, []string{"FDSTOREREMOVE=1 FDNAME=b", "+BARRIER=1", "+FDSTORE=1 FDPOLL=0 FDNAME=b"}},
		{func() bool { s.Drop("a"); return true }, true, []string{"FDSTOREREMOVE=1 FDNAME=a", "+BARRIER=1"}},
		{func() bool { return s.Keep("c", fd) }, true, []string{"+FDSTORE=1 FDPOLL=0 FDNAME=c"}},
	} {
		got := false
		if says := m.reads(len(step.says), func() { got = step.what() }); got != step.want || !slices.Equal(says, step.says) {
			t.Errorf("%v and %q, want %v and %q", got, says, step.want, step.says)
		}
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "store is full") || !strings.Contains(log.String(), "name=c FDSTORE=2") {
		t.Errorf("log %s", &log)
	}
}

// TestStoreLeaves: what was left is taken once, by what matches; the rest is closed, in the store
// too.
func TestStoreLeaves(t *testing.T) {
	m := newStoringManager(t)
	s := NewDescriptorStore(slog.New(slog.DiscardHandler), m.path, 2)
	var fds []int
	for _, name := range []string{"a", "b", "a"} {
		fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
		s.Leave(name, fd)
	}
	name, fd, ok := s.Take(func(name string, fd int) bool { return name == "a" && fd == fds[2] })
	if name != "a" || fd != fds[2] || !ok {
		t.Errorf("took %q %d %v", name, fd, ok)
	}
	unix.Close(fd)
	if _, _, ok := s.Take(func(name string, fd int) bool { return name == "c" }); ok {
		t.Error("took what does not match")
	}
	var rest []string
	says := m.reads(4, func() { rest = s.Rest() })
	if !slices.Equal(rest, []string{"a", "b"}) || !slices.Equal(says, []string{"FDSTOREREMOVE=1 FDNAME=a", "+BARRIER=1", "FDSTOREREMOVE=1 FDNAME=b", "+BARRIER=1"}) {
		t.Errorf("%q, %q", rest, says)
	}
	for _, fd := range fds[:2] {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
			t.Errorf("descriptor %d is open: %v", fd, err)
		}
	}
}

// TestStoreOfOneThatStandsStill: a service manager that stands still holds up nothing for long: the
// first wait for it is the last one until it answers. Once it goes on it has all in order, as far
// as its socket had room.
func TestStoreOfOneThatStandsStill(t *testing.T) {
	m := newStoringManager(t)
	s := NewDescriptorStore(slog.New(slog.DiscardHandler), m.path, 1000)
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	kept := 0
	for i := range 200 { // beyond what its socket holds (net.unix.max_dgram_qlen)
		if s.Keep(fmt.Sprint(i), int(f.Fd())) {
			kept++
		}
		s.Drop("none")
	}
	if s.unanswered == nil || !s.full || kept == 0 || kept == 200 {
		t.Fatalf("%d kept; full %v, a barrier without an answer %v", kept, s.full, s.unanswered != nil)
	}
	for i := 0; i < kept; {
		if said := m.read(); said == fmt.Sprint("+FDSTORE=1 FDPOLL=0 FDNAME=", i) {
			i++
		} else if strings.Contains(said, "FDSTORE=1") {
			t.Fatalf("%q, want %d", said, i)
		}
	}
	m.skip()
	m.reads(2, func() { s.Drop("none") })
	if s.full || s.unanswered != nil {
		t.Error("it answers again, and is not waited for")
	}
}
