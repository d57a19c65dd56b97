package socket

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/safepath"
)

// TestForeignLink: the master binds at no path that leads through a link of another user, and
// follows links of root and of its user.
func TestForeignLink(t *testing.T) {
	asRoot(t)
	theirs, roots, _ := directories(t)
	dir := filepath.Dir(theirs)
	makeLink(t, roots, filepath.Join(theirs, "link"), stranger)
	makeLink(t, roots, filepath.Join(theirs, "planted"), 0) // in a directory in which they can put another
	makeLink(t, "roots", filepath.Join(dir, "ours"), 0)
	makeLink(t, roots, filepath.Join(dir, "given"), stranger)
	for path, want := range map[string]error{
		theirs + "/link/s":        syscall.ELOOP,
		theirs + "/planted/s":     syscall.ELOOP,
		dir + "/given/s":          syscall.ELOOP,
		dir + "/ours/s":           nil,
		theirs + "/s":             nil,
		roots + "/shadow/s":       syscall.ENOTDIR,
		dir + "/ours/../theirs/t": syscall.EINVAL, // not as a worker resolves it
	} {
		s, err := Open(SocketSpec{Request: netactor.Request{Network: "unix", Address: path, Mode: 0o666}})
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
		if errors.Is(err, syscall.ELOOP) && !strings.Contains(err.Error(), "symbolic link that others") {
			t.Errorf("%s: %v", path, err)
		}
		if s == nil {
			continue
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o666 {
			t.Errorf("%s: %v, %v", path, st, err)
		}
		if err := connects("unix", path); err != nil {
			t.Error(err)
		}
		s.Close()
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
}

// TestSwappedDirectory: a link replaces the directory of a socket, or another file replaces the
// socket's file. The master removes nothing through the link, and removes the file that it made
// where that is now.
func TestSwappedDirectory(t *testing.T) {
	asRoot(t)
	theirs, roots, file := directories(t)
	path := filepath.Join(theirs, "d", "shadow")
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	s := opened(t, netactor.Request{Network: "unix", Address: path})
	away := filepath.Join(theirs, "away")
	if err := os.Rename(filepath.Dir(path), away); err != nil {
		t.Fatal(err)
	}
	makeLink(t, roots, filepath.Dir(path), stranger)
	s.Close()
	if _, err := os.Lstat(file); err != nil {
		t.Errorf("another file was removed: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(away, "shadow")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's own was not: %v", err)
	}

	path = filepath.Join(roots, "s")
	s = opened(t, netactor.Request{Network: "unix", Address: path})
	if err := errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("a file in the socket's place was removed: %v", err)
	}
}

// TestStalePath: only a socket of this process's user without a listener is taken over. Any other
// file stays, and the error says what it is.
func TestStalePath(t *testing.T) {
	dir := t.TempDir()
	stale := func(path string) {
		t.Helper()
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
		if err != nil {
			t.Fatal(err)
		}
		ln.SetUnlinkOnClose(false)
		ln.Close()
	}
	for name, make := range map[string]func(path string) error{
		"a regular file":  func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"a directory":     func(path string) error { return os.Mkdir(path, 0o700) },
		"a pipe":          func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a symbolic link": func(path string) error { stale(path + ".to"); return os.Symlink(path+".to", path) },
		"it is user 54321's": func(path string) error {
			stale(path)
			return os.Chown(path, stranger, stranger)
		},
	} {
		if strings.Contains(name, "user") && os.Geteuid() != 0 {
			continue
		}
		path := filepath.Join(dir, name)
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		_, err := Open(SocketSpec{Request: netactor.Request{Network: "unix", Address: path}})
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s: was removed: %v", name, err)
		}
	}
}

// TestConnectedByNumber: by FD a worker gets no socket that is connected to a peer, nor a socket of
// another kind than it asked for.
func TestConnectedByNumber(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	file := func(c any, err error) int {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		f, err := c.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return int(f.Fd())
	}
	tcpConn, err := net.Dial("tcp", ln.Addr().String())
	tcpFD := file(tcpConn, err)
	defer tcpConn.Close()
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	freeFD := file(free, err)
	defer free.Close()
	udpConn, err := net.Dial("udp", free.LocalAddr().String())
	udpFD := file(udpConn, err)
	defer udpConn.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	if err := unix.Bind(pair[0], &unix.SockaddrUnix{Name: filepath.Join(t.TempDir(), "s")}); err != nil {
		t.Fatal(err)
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(event)
	for name, fd := range map[string]int{"a TCP connection": tcpFD, "a connected UDP socket": udpFD, "one of a pair": pair[0], "an eventfd": event} {
		for _, packet := range []bool{false, true} {
			if s, err := dupSocket(fd, packet); !errors.Is(err, syscall.EINVAL) {
				t.Errorf("%s, packet %v: %v, %v", name, packet, s, err)
			}
		}
	}
	s, err := dupSocket(freeFD, true)
	if err != nil {
		t.Fatalf("a UDP socket without a peer: %v", err)
	}
	s.Close()
	if p, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP); err == nil { // where net.ipv4.ping_group_range allows it
		defer unix.Close(p)
		_ = unix.Bind(p, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 77})
		if s, err := dupSocket(p, true); err == nil {
			t.Errorf("a socket of ICMP: %v", s)
		}
	}
}

// TestOpenFile: a program with more rights opens only a regular file, and follows no link, in a
// directory of another user.
func TestOpenFile(t *testing.T) {
	asRoot(t)
	theirs, roots, file := directories(t)
	makeLink(t, file, filepath.Join(theirs, "log"), stranger)
	makeLink(t, "shadow", filepath.Join(roots, "log"), 0)
	if err := errors.Join(os.Link(file, filepath.Join(theirs, "hard")), unix.Mkfifo(filepath.Join(theirs, "pipe"), 0o666)); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(roots, "other")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	makeLink(t, "other", filepath.Join(roots, "to other"), 0)
	common := filepath.Join(filepath.Dir(roots), "common")
	if err := errors.Join(os.Mkdir(common, 0o777), os.Chmod(common, 0o777|os.ModeSticky)); err != nil {
		t.Fatal(err)
	}
	makeLink(t, other, filepath.Join(common, "link"), 0)
	makeLink(t, other, filepath.Join(roots, "twice"), 0)
	if err := unix.Linkat(unix.AT_FDCWD, filepath.Join(roots, "twice"), unix.AT_FDCWD, filepath.Join(common, "hard"), 0); err != nil {
		t.Fatal(err) // as others can without fs.protected_hardlinks
	}
	for path, want := range map[string]error{
		filepath.Join(theirs, "log"):     syscall.ELOOP,
		filepath.Join(theirs, "hard"):    syscall.EPERM,
		filepath.Join(theirs, "pipe"):    syscall.EPERM,
		filepath.Join(theirs, "new"):     nil,
		filepath.Join(roots, "to other"): nil,
		filepath.Join(roots, "log"):      nil,
		filepath.Join(roots, "twice"):    nil,
		filepath.Join(common, "link"):    nil,
		filepath.Join(common, "hard"):    syscall.ELOOP,
		"/dev/null":                      nil,
		"/dev/stdout":                    nil,
	} {
		f, err := safepath.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
		if err == nil {
			if f.Name() != path {
				t.Errorf("%s: its name is %q", path, f.Name())
			}
			f.Close()
		}
	}
	if _, err := safepath.OpenFile(filepath.Join(theirs, "log"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
	if _, err := safepath.OpenFile(filepath.Join(roots, "none"), os.O_RDONLY, 0); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
