package netactor_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/registry"
)

// memoryStore is a descriptor store, and what a program has of it. A Table that closes while ending
// is set leaves its sockets in the store, as a program does that is killed.
type memoryStore struct {
	t      *testing.T
	room   int
	ending atomic.Bool

	mu    sync.Mutex
	kept  []storedSocket // as the service manager has them
	held  []storedSocket // as the program got them
	keeps int
}

type storedSocket struct {
	name string
	fd   int
}

func newMemoryStore(t *testing.T) *memoryStore {
	s := &memoryStore{t: t, room: 100}
	t.Cleanup(func() {
		for _, k := range append(s.kept, s.held...) {
			unix.Close(k.fd)
		}
	})
	return s
}

func dup(t *testing.T, fd int) int {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
	}
	return n
}

func (s *memoryStore) Keep(name string, fd int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(name) > 255 || strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c > '~' || c == ':' }) || !strings.HasPrefix(name, registry.StorePrefix) {
		s.t.Errorf("systemd takes no descriptor with the name %q", name)
	}
	if slices.ContainsFunc(s.kept, func(k storedSocket) bool { return k.name == name }) {
		s.t.Errorf("%q is stored twice", name)
	}
	if len(s.kept) >= s.room {
		return false
	}
	s.keeps++
	s.kept = append(s.kept, storedSocket{name, dup(s.t, fd)})
	return true
}

func (s *memoryStore) Drop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = slices.DeleteFunc(s.kept, func(k storedSocket) bool {
		if k.name == name {
			unix.Close(k.fd)
		}
		return k.name == name
	})
}

func (s *memoryStore) Take(match func(string, int) bool) (string, int, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, h := range s.held {
		if match(h.name, h.fd) {
			s.held = slices.Delete(s.held, i, i+1)
			return h.name, h.fd, true
		}
	}
	return "", -1, false
}

func (s *memoryStore) Leave(_ string, fd int) { unix.Close(fd) } // the program ends

// restart hands the stored sockets to the next run of the program.
func (s *memoryStore) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending.Store(false)
	s.keeps = 0
	for _, k := range s.kept {
		s.held = append(s.held, storedSocket{k.name, dup(s.t, k.fd)})
	}
}

// sockets returns the names in the store, each with the inode of its socket.
func (s *memoryStore) sockets() (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.kept {
		var st unix.Stat_t
		if err := unix.Fstat(k.fd, &st); err != nil {
			s.t.Error(err)
		}
		out = append(out, fmt.Sprint(k.name, " ", st.Ino))
	}
	slices.Sort(out)
	return out
}

// alone reports whether each socket in the store has no other descriptor in this process.
func (s *memoryStore) alone() bool {
	copies := make(map[string]int)
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		s.t.Error(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			copies[to]++
		}
	}
	return !slices.ContainsFunc(s.sockets(), func(name string) bool {
		return copies["socket:["+name[strings.LastIndexByte(name, ' ')+1:]+"]"] != 1
	})
}

// run is one run of a program with the store.
func (s *memoryStore) run(t *testing.T) *tree {
	return newTree(t, false, func(tr *tree) {
		tr.second = true
		tr.tableCfg.Store, tr.tableCfg.Ending = s, s.ending.Load
	})
}

// kill ends a run as a kill of all its processes does. What is in between happens before the next
// run.
func (s *memoryStore) kill(tr *tree, between ...func()) {
	s.ending.Store(true)
	tr.close()
	until(s.t, "the run's copies of the sockets to be closed", func() bool { runtime.GC(); return s.alone() })
	for _, f := range between {
		f()
	}
	s.restart()
}

// open opens the socket of the listener "spec" of the tree.
func (tr *tree) open(r netactor.Request) net.Addr {
	tr.t.Helper()
	addr, err := tr.table.Open(testContext(tr.t), "spec", r)
	if err != nil {
		tr.t.Fatalf("open %+v: %v", r, err)
	}
	return addr
}

// TestStoredSocketsAreTakenBack: a socket of each kind is in the store under a legal name, and the
// next run has the same socket again, at the same address, with the file and its mode, and with the
// clients that came in between.
func TestStoredSocketsAreTakenBack(t *testing.T) {
	checkLeaks(t)
	dir := t.TempDir()
	long := filepath.Join(dir, strings.Repeat("long/", 40), "s")
	if err := os.MkdirAll(filepath.Dir(long), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, r := range []netactor.Request{
		{Network: "tcp", Address: "127.0.0.1:0", Name: "a name: 100% ö;"},
		{Network: "tcp", Address: ":0"},
		{Network: "tcp6", Address: "[::1]:0", Options: netactor.SocketOptions{ReceiveBuffer: 8192, DeferAccept: time.Second}},
		{Network: "tcp4", Address: "127.0.0.1:0", Policy: netactor.Shared},
		{Network: "tcp", Address: "127.0.0.1:0", Policy: netactor.ReusePort},
		{Network: "unix", Address: filepath.Join(dir, "a"), Mode: 0o600},
		{Network: "unix", Address: long},
		{Network: "unixpacket", Address: filepath.Join(dir, "b")},
		{Network: "unix", Address: "@coppice-test-" + t.Name() + fmt.Sprint(os.Getpid())},
		{Network: "udp", Address: "127.0.0.1:0"},
		{Network: "udp", Address: "224.0.0.251:0"},
		{Network: "unixgram", Address: filepath.Join(dir, "c"), Mode: 0o640},
	} {
		t.Run(fmt.Sprint(r.Network, " ", r.Policy), func(t *testing.T) {
			s := newMemoryStore(t)
			tr := s.run(t)
			addr := tr.open(r)
			before := s.sockets()
			if len(before) != 1 || s.keeps != 1 {
				t.Fatalf("%q, %d kept", before, s.keeps)
			}
			s.kill(tr)
			again := make(chan error, 1)
			if strings.HasPrefix(r.Network, "tcp") || r.Network == "unix" && len(r.Address) < 100 {
				c, err := net.Dial(addr.Network(), addr.String())
				if err != nil {
					t.Fatalf("refused between two runs: %v", err)
				}
				go func() { again <- errors.Join(answeredOn(c), c.Close()) }()
			} else {
				again <- nil
			}
			tr = s.run(t)
			if got := tr.open(r); got.String() != addr.String() {
				t.Errorf("at %v, was at %v", got, addr)
			}
			if after := s.sockets(); s.keeps != 0 || !slices.Equal(after, before) || len(s.held) != 0 {
				t.Errorf("%q, then %q; %d kept anew, %d not taken", before, after, s.keeps, len(s.held))
			}
			if r.Mode != 0 {
				if st, err := os.Stat(r.Address); err != nil || st.Mode().Perm() != r.Mode {
					t.Errorf("mode %v, %v", st.Mode(), err)
				}
			}
			if !strings.HasPrefix(r.Network, "udp") && r.Network != "unixgram" {
				greet(tr.worker(0).mustListen(atAddr(r, addr)))
			}
			if err := <-again; err != nil {
				t.Errorf("a client that came between two runs: %v", err)
			}
			// Closed for good, it is not in the store, and its address is free.
			tr.table.StopOwner("spec")
			tr.table.StopOwner("web")
			until(t, "a listener that is closed for good to leave the store", func() bool { return len(s.sockets()) == 0 })
			if filepath.IsAbs(r.Address) {
				until(t, "its file to go", func() bool { _, err := os.Lstat(r.Address); return os.IsNotExist(err) })
			}
			tr.open(r)
		})
	}
}

// atAddr returns r for the address that it got.
func atAddr(r netactor.Request, addr net.Addr) netactor.Request {
	r.Address, r.Name = addr.String(), ""
	return r
}

// greet answers each client with one byte.
func greet(ln net.Listener) {
	go func() { // ends with the listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1)) // to close it unread would be a reset
			_, _ = c.Write([]byte("k"))
			_ = c.Close()
		}
	}()
}

// answeredOn waits for the answer of greet.
func answeredOn(c net.Conn) error {
	_, err := c.Write([]byte("?")) // for DeferAccept
	if err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	_, err = c.Read(make([]byte, 1))
	return err
}

// TestStoredSocketsThatDoNotFit: a socket in the store that is not what the next run asks for is
// closed and taken out of the store, and a new one is opened and kept in its place.
func TestStoredSocketsThatDoNotFit(t *testing.T) {
	checkLeaks(t)
	for _, tt := range []struct {
		name    string
		first   netactor.Request
		between func(t *testing.T, s *memoryStore, addr net.Addr)
		second  func(*netactor.Request, net.Addr)
	}{
		{"shut down", netactor.Request{Network: "tcp", Address: "127.0.0.1:0"}, func(t *testing.T, s *memoryStore, _ net.Addr) {
			if err := unix.Shutdown(s.kept[0].fd, unix.SHUT_RDWR); err != nil {
				t.Fatal(err)
			}
		}, nil},
		{"shut down, of Unix", netactor.Request{Network: "unix", Address: "$s"}, func(t *testing.T, s *memoryStore, _ net.Addr) {
			if err := unix.Shutdown(s.kept[0].fd, unix.SHUT_RDWR); err != nil {
				t.Fatal(err)
			}
		}, nil},
		{"a pipe", netactor.Request{Network: "tcp", Address: "127.0.0.1:0"}, func(t *testing.T, s *memoryStore, _ net.Addr) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			w.Close()
			defer r.Close()
			if err := unix.Dup3(int(r.Fd()), s.kept[0].fd, unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
		}, nil},
		{"bound elsewhere", netactor.Request{Network: "udp", Address: "127.0.0.1:0"}, func(t *testing.T, s *memoryStore, _ net.Addr) {
			pc, err := net.ListenPacket("udp", "127.0.0.2:0")
			if err != nil {
				t.Fatal(err)
			}
			defer pc.Close()
			f, err := pc.(*net.UDPConn).File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := unix.Dup3(int(f.Fd()), s.kept[0].fd, unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
		}, nil},
		{"path removed", netactor.Request{Network: "unix", Address: "$s"}, func(t *testing.T, _ *memoryStore, addr net.Addr) {
			if err := os.Remove(addr.String()); err != nil {
				t.Fatal(err)
			}
		}, nil},
		{"path of another socket", netactor.Request{Network: "unix", Address: "$s"}, func(t *testing.T, _ *memoryStore, addr net.Addr) {
			if err := os.Remove(addr.String()); err != nil {
				t.Fatal(err)
			}
			ln, err := net.Listen("unix", addr.String())
			if err != nil {
				t.Fatal(err)
			}
			ln.(*net.UnixListener).SetUnlinkOnClose(false)
			ln.Close()
		}, nil},
		{"mode no longer asked for", netactor.Request{Network: "unix", Address: "$s", Mode: 0o600}, nil, func(r *netactor.Request, _ net.Addr) { r.Mode = 0 }},
		{
			"option no longer asked for",
			netactor.Request{Network: "tcp", Address: "127.0.0.1:0", Options: netactor.SocketOptions{FreeBind: true}},
			nil,
			func(r *netactor.Request, _ net.Addr) { r.Options.FreeBind = false },
		},
		{"one of a group", netactor.Request{Network: "tcp", Address: "127.0.0.1:0"}, nil, func(r *netactor.Request, _ net.Addr) { r.Policy = netactor.ReusePort }},
		{
			"no more of a group",
			netactor.Request{Network: "udp", Address: "127.0.0.1:0", Policy: netactor.ReusePort},
			nil,
			func(r *netactor.Request, _ net.Addr) { r.Policy = netactor.Shared },
		},
		{"the port at another address", netactor.Request{Network: "tcp", Address: ":0"}, nil, func(r *netactor.Request, a net.Addr) {
			_, port, _ := net.SplitHostPort(a.String())
			r.Address = "127.0.0.1:" + port
		}},
		{"IPv6 alone", netactor.Request{Network: "tcp", Address: ":0"}, nil, func(r *netactor.Request, a net.Addr) {
			_, port, _ := net.SplitHostPort(a.String())
			r.Network, r.Address = "tcp6", "[::]:"+port
		}},
		{"the path for another network", netactor.Request{Network: "unix", Address: "$s"}, nil, func(r *netactor.Request, _ net.Addr) { r.Network = "unixpacket" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.first.Address == "$s" {
				tt.first.Address = filepath.Join(t.TempDir(), "s")
			}
			s := newMemoryStore(t)
			tr := s.run(t)
			addr := tr.open(tt.first)
			before := s.sockets()
			s.kill(tr, func() {
				if tt.between != nil {
					tt.between(t, s, addr)
				}
			})
			second := tt.first
			if tt.second != nil {
				tt.second(&second, addr)
			}
			tr = s.run(t)
			tr.open(second)
			after := s.sockets()
			if s.keeps != 1 || len(after) != 1 || after[0] == before[0] || len(s.held) != 0 {
				t.Errorf("%q, then %q; %d kept anew, %d not taken", before, after, s.keeps, len(s.held))
			}
			if second.Network == "unix" {
				greet(tr.worker(0).mustListen(second))
				c, err := net.Dial("unix", second.Address)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if err := answeredOn(c); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestStoredGroup: each socket of a ReusePort listener is in the store under a name of its own. The
// next run takes as many as it has workers, and the others are taken by the workers that come.
func TestStoredGroup(t *testing.T) {
	checkLeaks(t)
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			s := newMemoryStore(t)
			r := netactor.Request{Network: network, Address: "127.0.0.1:0", Policy: netactor.ReusePort}
			tr := s.run(t)
			joined := atAddr(r, tr.open(r))
			join := func(tr *tree, slot int) *testWorker {
				w := tr.worker(slot)
				if network == "tcp" {
					w.mustListen(joined)
				} else {
					w.mustListenPacket(joined)
				}
				return w
			}
			for slot := range 3 {
				join(tr, slot)
			}
			before := s.sockets()
			if len(before) != 3 {
				t.Fatalf("%q", before)
			}
			s.kill(tr)
			tr = s.run(t)
			tr.open(r)
			join(tr, 0)
			if len(s.held) != 2 {
				t.Errorf("one worker took %d sockets", 3-len(s.held))
			}
			last := join(tr, 1)
			join(tr, 2)
			if after := s.sockets(); !slices.Equal(after, before) || s.keeps != 0 {
				t.Errorf("%q, then %q; %d kept anew", before, after, s.keeps)
			}
			last.gone(true)
			until(t, "the socket of a worker that is not replaced to leave the store", func() bool { return len(s.sockets()) == 2 })
			join(tr, 3)
			join(tr, 4)
			until(t, "the sockets of two more workers to be stored", func() bool { return len(s.sockets()) == 4 })
		})
	}
}

// TestNotStored: what was given to the master is not stored, nor what the store has no room for:
// that is served, and closed at the end.
func TestNotStored(t *testing.T) {
	checkLeaks(t)
	s := newMemoryStore(t)
	tr := s.run(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tr.open(netactor.Request{FD: int(f.Fd())})
	own, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.worker(0).ls.Share(testContext(t), netactor.Request{}, own); err != nil {
		t.Fatal(err)
	}
	if s.keeps != 0 {
		t.Errorf("stored: %q", s.sockets())
	}
	s.room = 0
	path := filepath.Join(t.TempDir(), "s")
	if _, err := tr.table.Open(testContext(t), "other", netactor.Request{Network: "unix", Address: path}); err != nil {
		t.Fatal(err)
	}
	s.kill(tr)
	if _, err := net.Dial("unix", path); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a socket that is not stored, after the end: %v", err)
	}
}

// TestStoredUntilTheEnd: when the program is about to end, the end of an owner leaves the sockets
// in the store, and none refuses clients.
func TestStoredUntilTheEnd(t *testing.T) {
	checkLeaks(t)
	s := newMemoryStore(t)
	tr := s.run(t)
	r := netactor.Request{Network: "tcp", Address: "127.0.0.1:0"}
	addr := tr.open(r)
	tr.worker(0).mustListen(atAddr(r, addr))
	s.ending.Store(true)
	before := s.sockets()
	if refusing := tr.table.Gone("web"); len(refusing) != 1 {
		t.Errorf("refusing %q", refusing)
	}
	tr.table.StopOwner("spec")
	if after := s.sockets(); len(after) != 1 || !slices.Equal(after, before) {
		t.Errorf("%q, then %q", before, after)
	}
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
