package lazyconn

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc/internal/claims"
)

// pair returns a Conn and its client. It counts descriptors at the end of the test, when both are
// closed.
func pair(t *testing.T, network string, place claims.Place) (*Conn, net.Conn) {
	t.Helper()
	addr := "127.0.0.1:0"
	if network != "tcp" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial(network, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	fd := -1
	raw, _ := server.(syscall.Conn).SyscallConn()
	_ = raw.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0) })
	if err != nil {
		t.Fatal(err)
	}
	c := new(Conn)
	Init(c, fd, network, client, place)
	t.Cleanup(func() { // a second close is an error
		_, _ = client.Close(), c.Close()
	})
	return c, client
}

func countFiles(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// stage is where a Conn is.
func stage(c *Conn) string {
	switch {
	case c.final.Load():
		return "last"
	case c.file.Load() != nil:
		return "file"
	}
	return "bare"
}

// reach passes c to a stage.
func reach(t *testing.T, c *Conn, to string) {
	t.Helper()
	switch to {
	case "file":
		past := time.Now().Add(time.Millisecond)
		_ = c.SetReadDeadline(past)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Time{})
	case "last":
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
	}
	if stage(c) != to {
		t.Fatalf("%s, want %s", stage(c), to)
	}
}

// until waits for what another goroutine does.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("still not: " + what)
		}
	}
}

// A short connection stays a bare descriptor. What only package net can do makes it package net's at
// once, and many reads that went to the poller do. It has one descriptor at any time.
func TestStages(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, tt := range map[string]struct {
		stage string
		do    func(*testing.T, *Conn, net.Conn) error
	}{
		"a request": {"bare", func(_ *testing.T, c *Conn, client net.Conn) error {
			_, werr := client.Write([]byte("x"))
			until(t, "arrival", func() bool { n, _ := unix.IoctlGetInt(c.fd, unix.SIOCINQ); return n > 0 })
			_ = c.SetDeadline(time.Now().Add(time.Hour))
			_, rerr := c.Read(make([]byte, 9))
			_, err := c.Write([]byte("x"))
			return errors.Join(werr, rerr, err, c.CloseWrite())
		}},
		"ReadFrom of bytes": {"bare", func(_ *testing.T, c *Conn, _ net.Conn) error {
			_, err := c.ReadFrom(strings.NewReader("x"))
			return err
		}},
		"WriteTo memory": {"bare", func(_ *testing.T, c *Conn, client net.Conn) error {
			client.Close()
			until(t, "end", func() bool { n, err := rawRead(c.fd, make([]byte, 1)); return n == 0 && err == nil })
			_, err := c.WriteTo(new(bytes.Buffer))
			return err
		}},
		"a first wait": {"file", func(t *testing.T, c *Conn, _ net.Conn) error { reach(t, c, "file"); return nil }},
		"kept": {"last", func(_ *testing.T, c *Conn, client net.Conn) error {
			for range keptAfter + 1 {
				done := make(chan error)
				before := c.reads.Load()
				go func() { _, err := c.Read(make([]byte, 1)); done <- err }()
				until(t, "read", func() bool { return stage(c) == "last" || c.reads.Load() > before })
				if _, err := client.Write([]byte("x")); err != nil {
					return err
				}
				if err := <-done; err != nil {
					return err
				}
			}
			return nil
		}},
		"ReadFrom of a file": {"last", func(_ *testing.T, c *Conn, _ net.Conn) error { _, err := c.ReadFrom(file); return err }},
		"ReadFrom of its start": {"last", func(_ *testing.T, c *Conn, _ net.Conn) error {
			_, err := c.ReadFrom(io.LimitReader(file, 1))
			return err
		}},
		"SetNoDelay":    {"last", func(_ *testing.T, c *Conn, _ net.Conn) error { return c.SetNoDelay(true) }},
		"SetKeepAlive":  {"last", func(_ *testing.T, c *Conn, _ net.Conn) error { return c.SetKeepAlive(true) }},
		"SetReadBuffer": {"last", func(_ *testing.T, c *Conn, _ net.Conn) error { return c.SetReadBuffer(1 << 16) }},
		"SyscallConn":   {"last", func(_ *testing.T, c *Conn, _ net.Conn) error { _, err := c.SyscallConn(); return err }},
		"TCPConn":       {"last", func(_ *testing.T, c *Conn, _ net.Conn) error { _, err := c.TCPConn(); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			before := countFiles(t)
			c, client := pair(t, "tcp", claims.Place{})
			if err := tt.do(t, c, client); err != nil {
				t.Fatal(err)
			}
			if stage(c) != tt.stage {
				t.Errorf("it is %s, want %s", stage(c), tt.stage)
			}
			_ = client.Close()
			if n := countFiles(t) - before; n != 1 {
				t.Errorf("it has %d descriptors", n)
			}
			_ = c.Close()
			if n := countFiles(t) - before; n != 0 {
				t.Errorf("%d descriptors are left", n)
			}
		})
	}
}

// Deadlines set in an earlier stage hold in the next ones, and those that were taken back do not.
func TestDeadlinesPass(t *testing.T) {
	for _, from := range []string{"bare", "file"} {
		t.Run(from, func(t *testing.T) {
			c, _ := pair(t, "tcp", claims.Place{})
			reach(t, c, from)
			_ = c.SetDeadline(time.Now().Add(50 * time.Millisecond))
			reach(t, c, "last")
			_, err := c.Read(make([]byte, 1))
			_, werr := c.Write(make([]byte, 16<<20)) // more than there is room for
			for what, err := range map[string]error{"read": err, "write": werr} {
				if ne := net.Error(nil); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
					t.Errorf("%s: %v", what, err)
				}
			}

			c, client := pair(t, "tcp", claims.Place{})
			reach(t, c, from)
			_ = c.SetReadDeadline(time.Unix(1, 0))
			_ = c.SetReadDeadline(time.Time{})
			reach(t, c, "last")
			_, _ = client.Write([]byte("x"))
			if n, err := c.Read(make([]byte, 1)); n != 1 {
				t.Errorf("without a deadline: %v", err)
			}
		})
	}
}

// A Read and a Write that wait while the connection becomes package net's go on there. Writes are
// not interleaved: the second waits for all of the first.
func TestWaitingCallsGoOn(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			c, client := pair(t, network, claims.Place{})
			got := make(chan string, 1)
			go func() {
				var b [8]byte
				n, err := c.Read(b[:])
				got <- string(b[:n])
				if err != nil {
					t.Error(err)
				}
			}()
			until(t, "wait of Read", func() bool { return c.reads.Load() > 0 })
			first, second := bytes.Repeat([]byte("a"), 16<<20), bytes.Repeat([]byte("b"), 1<<20)
			var all sync.WaitGroup
			write := func(b []byte) {
				all.Go(func() {
					if n, err := c.Write(b); n != len(b) || err != nil {
						t.Errorf("%d of %d, %v", n, len(b), err)
					}
				})
			}
			write(first)
			var peek [1]byte
			if _, err := io.ReadFull(client, peek[:]); err != nil { // it has begun
				t.Fatal(err)
			}
			write(second)
			if err := c.SetReadBuffer(1 << 16); err != nil {
				t.Fatal(err)
			}
			_, _ = client.Write([]byte("hello"))
			if s := <-got; s != "hello" {
				t.Errorf("read %q", s)
			}
			b := make([]byte, len(first)-1+len(second))
			if _, err := io.ReadFull(client, b); err != nil {
				t.Fatal(err)
			}
			all.Wait()
			if n := bytes.IndexByte(b, 'b'); n != len(first)-1 || bytes.Contains(b[n:], []byte("a")) {
				t.Error("the writes are interleaved")
			}
			if stage(c) != "last" {
				t.Error(stage(c))
			}
		})
	}
}

// Close in the midst of everything: each call ends, with net.ErrClosed if the Close was first, and
// no descriptor is left, nor closed twice.
func TestCloseDuringChange(t *testing.T) {
	before := countFiles(t)
	for i := range 64 {
		c, client := pair(t, []string{"tcp", "unix"}[i%2], claims.Place{})
		go func() { _, _ = io.Copy(client, client) }() // ends with the Close
		var all sync.WaitGroup
		repeat := func(call func() error) {
			all.Go(func() {
				for {
					if err := call(); err != nil {
						if !errors.Is(err, net.ErrClosed) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		begun := make(chan bool, 1)
		repeat(func() error {
			n, err := c.Read(make([]byte, 512))
			if n > 0 {
				select {
				case begun <- true:
				default:
				}
			}
			return err
		})
		repeat(func() error { _, err := c.Write(make([]byte, 512)); return err })
		repeat(func() error { return c.SetDeadline(time.Now().Add(time.Hour)) })
		if i%4 > 1 {
			<-begun
		}
		repeat(func() error { return c.SetWriteBuffer(1 << 16) })
		if i%8 > 3 {
			until(t, "change", func() bool { return stage(c) == "last" })
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		all.Wait()
		if err := c.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second Close: %v", err)
		}
		client.Close()
	}
	until(t, "no more descriptors than before", func() bool { return countFiles(t) <= before })
}

// Close shuts the connection down in every stage, if the process that it came from has a copy still;
// not if others may use it here. The client sees the end of the one, and not that of the other.
func TestFINInEveryStage(t *testing.T) {
	for _, at := range []string{"bare", "file", "last"} {
		for what, want := range map[string]bool{"held": true, "released": false, "handed out": false, "lent": false} {
			t.Run(at+", "+what, func(t *testing.T) {
				table := claims.New(make([]uint64, claims.Len(1)))
				table.Store(0, claims.Word(1, 0, claims.Claimed))
				place := claims.Place{Table: table, Seq: 1}
				c, _ := pair(t, "tcp", place)
				other, err := unix.FcntlInt(uintptr(c.fd), unix.F_DUPFD_CLOEXEC, 0) // the other process's copy
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(other)
				reach(t, c, at)
				switch what {
				case "released":
					place.Release()
				case "handed out":
					_, err = c.TCPConn()
				case "lent":
					var fd int
					if fd, err = Lend(c); err == nil {
						_, err = unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
					}
				}
				if err := errors.Join(err, c.Close()); err != nil {
					t.Fatal(err)
				}
				const established = 1
				info, err := unix.GetsockoptTCPInfo(other, unix.IPPROTO_TCP, unix.TCP_INFO)
				if err != nil || (info.State != established) != want {
					t.Errorf("state %d of TCP, %v", info.State, err)
				}
			})
		}
	}
}

// The options that a connection has stay when it becomes package net's, which would set its own.
func TestOptionsStay(t *testing.T) {
	c, _ := pair(t, "tcp", claims.Place{})
	want := [...]int{0, 0, 33, 44, 5}
	for i, o := range netSets {
		if err := unix.SetsockoptInt(c.fd, o.level, o.opt, want[i]); err != nil {
			t.Fatal(err)
		}
	}
	reach(t, c, "last")
	_ = control(c.std, func(fd int) {
		for i, o := range netSets {
			if v, err := unix.GetsockoptInt(fd, o.level, o.opt); v != want[i] || err != nil {
				t.Errorf("option %d of level %d: %d, %v; want %d", o.opt, o.level, v, err, want[i])
			}
		}
	})
}

// A number that was lent stays that of the connection until Close, also when the connection becomes
// package net's.
func TestLentStays(t *testing.T) {
	before := countFiles(t)
	c, client := pair(t, "tcp", claims.Place{})
	fd, err := Lend(c)
	if err != nil {
		t.Fatal(err)
	}
	reach(t, c, "last")
	if _, err := unix.Write(fd, []byte("x")); err != nil {
		t.Error(err)
	}
	var b [1]byte
	if _, err := io.ReadFull(client, b[:]); err != nil {
		t.Error(err)
	}
	_, _ = client.Close(), c.Close()
	until(t, "no more descriptors than before", func() bool { return countFiles(t) <= before })
	if _, err := Lend(c); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
