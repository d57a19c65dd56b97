package fdipc_test

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

// TestMethodsOfNet compares the methods of a connection that was handed over with those of package
// net's: each must be there and have the same type.
func TestMethodsOfNet(t *testing.T) {
	for _, tt := range []struct{ ours, nets reflect.Type }{
		{reflect.TypeFor[*fdipc.Socket](), reflect.TypeFor[*net.TCPConn]()},
		{reflect.TypeFor[*fdipc.UnixSocket](), reflect.TypeFor[*net.UnixConn]()},
	} {
		for i := range tt.nets.NumMethod() {
			want := tt.nets.Method(i)
			got, ok := tt.ours.MethodByName(want.Name)
			if !ok {
				t.Errorf("%v has no %s", tt.ours, want.Name)
				continue
			}
			a, b := got.Type, want.Type
			same := a.NumIn() == b.NumIn() && a.NumOut() == b.NumOut() && a.IsVariadic() == b.IsVariadic()
			for i := 1; same && i < a.NumIn(); i++ { // the receivers differ
				same = a.In(i) == b.In(i)
			}
			for i := 0; same && i < a.NumOut(); i++ {
				same = a.Out(i) == b.Out(i)
			}
			if !same {
				t.Errorf("%s: %v, package net's is %v", want.Name, a, b)
			}
		}
	}
}

// handed returns a connection that was handed over, and the client's end.
func handed(t *testing.T, network string) (net.Conn, net.Conn) {
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
	c, err := dupHandle(t, server).Conn() // a handle of the connection itself would give that back
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		client.Close()
	})
	return c, client
}

// TestOptionsOfNet sets options on a connection that was handed over, and on one of package net,
// and compares what the kernel has then.
func TestOptionsOfNet(t *testing.T) {
	type conn interface {
		net.Conn
		SetKeepAlivePeriod(time.Duration) error
		SetKeepAliveConfig(net.KeepAliveConfig) error
		SetReadBuffer(int) error
		SetWriteBuffer(int) error
		MultipathTCP() (bool, error)
		File() (*os.File, error)
	}
	read := func(c conn) (v [6]int) {
		f, err := c.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for i, o := range [][2]int{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
			{unix.SOL_SOCKET, unix.SO_RCVBUF},
			{unix.SOL_SOCKET, unix.SO_SNDBUF},
		} {
			if v[i], err = unix.GetsockoptInt(int(f.Fd()), o[0], o[1]); err != nil {
				t.Fatal(err)
			}
		}
		return v
	}
	c, client := handed(t, "tcp")
	ours, nets := c.(conn), client.(conn)
	for name, set := range map[string]func(conn) error{
		"period":       func(c conn) error { return c.SetKeepAlivePeriod(1500 * time.Millisecond) },
		"period 0":     func(c conn) error { return c.SetKeepAlivePeriod(0) },
		"period below": func(c conn) error { return c.SetKeepAlivePeriod(-1) },
		"config": func(c conn) error {
			return c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 7 * time.Second, Interval: 3 * time.Second, Count: 4})
		},
		"defaults": func(c conn) error { return c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true}) },
		"kernel's": func(c conn) error {
			return c.SetKeepAliveConfig(net.KeepAliveConfig{Idle: -1, Interval: -1, Count: -1})
		},
		"read buffer":  func(c conn) error { return c.SetReadBuffer(50_000) },
		"write buffer": func(c conn) error { return c.SetWriteBuffer(60_000) },
	} {
		for _, c := range []conn{ours, nets} { // the same before
			if err := c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: time.Minute, Count: 3}); err != nil {
				t.Fatal(err)
			}
			_, _ = c.SetReadBuffer(40_000), c.SetWriteBuffer(40_000)
			if err := set(c); err != nil {
				t.Errorf("%s: %T: %v", name, c, err)
			}
		}
		if got, want := read(ours), read(nets); got != want {
			t.Errorf("%s: the kernel has %v, after package net's call %v", name, got, want)
		}
	}
	got, err := ours.MultipathTCP()
	want, werr := nets.MultipathTCP()
	if got != want || err != nil || werr != nil {
		t.Errorf("multipath: %v, %v; package net says %v, %v", got, err, want, werr)
	}
}

// copied is a reader that io.Copy is to read.
type copied struct{ io.Reader }

// TestReadFrom: what ReadFrom is given arrives whole. A file, and a connection of package net, are
// moved by the kernel: no buffer is allocated to copy through.
func TestReadFrom(t *testing.T) {
	want := bytes.Repeat([]byte("coppice\n"), 1<<17) // 1 MiB
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	file := func(t *testing.T) io.Reader {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	for name, tt := range map[string]struct {
		from   func(*testing.T) io.Reader
		want   []byte
		kernel bool
	}{
		"file":                {file, want, true},
		"file, copied":        {func(t *testing.T) io.Reader { return copied{file(t)} }, want, true},
		"beginning of a file": {func(t *testing.T) io.Reader { return io.LimitReader(file(t), 100_000) }, want[:100_000], true},
		"any reader":          {func(*testing.T) io.Reader { return struct{ io.Reader }{bytes.NewReader(want)} }, want, false},
		"one that was handed over, copied": {func(t *testing.T) io.Reader {
			a, b := handed(t, "tcp")
			go func() {
				_, _ = b.Write(want)
				_ = b.Close()
			}()
			return copied{a}
		}, want, true},
		"a connection of net's": {func(t *testing.T) io.Reader {
			a, b := handed(t, "tcp") // b is package net's
			go func() {
				_, _ = a.Write(want)
				_ = a.Close()
			}()
			return b
		}, want, true},
	} {
		t.Run(name, func(t *testing.T) {
			c, client := handed(t, "tcp")
			got := make(chan []byte, 1)
			buf := make([]byte, len(want)+1)
			go func() {
				n, _ := io.ReadFull(client, buf)
				got <- buf[:n]
			}()
			from := tt.from(t)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			read := c.(io.ReaderFrom).ReadFrom
			if x, ok := from.(copied); ok {
				read = func(io.Reader) (int64, error) { return io.Copy(c, x.Reader) }
			}
			n, err := read(from)
			runtime.ReadMemStats(&after)
			if err != nil || n != int64(len(tt.want)) {
				t.Errorf("%d bytes, %v", n, err)
			}
			_ = c.Close()
			if b := <-got; !bytes.Equal(b, tt.want) {
				t.Errorf("%d bytes arrived, or others", len(b))
			}
			if used := after.TotalAlloc - before.TotalAlloc; tt.kernel && used >= 32<<10 {
				t.Errorf("%d bytes allocated: the kernel did not move it", used)
			}
		})
	}
}

// TestWriteTo: WriteTo writes what comes until the end.
func TestWriteTo(t *testing.T) {
	c, client := handed(t, "tcp")
	go func() {
		_, _ = io.WriteString(client, "all of it")
		_ = client.Close()
	}()
	var b bytes.Buffer
	if n, err := c.(io.WriterTo).WriteTo(&b); n != 9 || err != nil || b.String() != "all of it" {
		t.Errorf("%d, %v, %q", n, err, b.String())
	}
}

// TestMessagesOfUnixSocket passes a descriptor over a Unix connection that was handed over, both
// ways.
func TestMessagesOfUnixSocket(t *testing.T) {
	c, client := handed(t, "unix")
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	type messages interface {
		WriteMsgUnix(b, oob []byte, addr *net.UnixAddr) (n, oobn int, err error)
		ReadMsgUnix(b, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error)
	}
	for _, way := range [][2]net.Conn{{c, client}, {client, c}} {
		rights := unix.UnixRights(int(f.Fd()))
		if n, oobn, err := way[0].(messages).WriteMsgUnix([]byte("x"), rights, nil); n != 1 || oobn != len(rights) || err != nil {
			t.Fatalf("%T: %d, %d, %v", way[0], n, oobn, err)
		}
		b, oob := make([]byte, 9), make([]byte, 64)
		n, oobn, _, _, err := way[1].(messages).ReadMsgUnix(b, oob)
		if n != 1 || err != nil {
			t.Fatalf("%T: %d, %v", way[1], n, err)
		}
		ms, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(ms) != 1 {
			t.Fatalf("%v, %v", ms, err)
		}
		fds, err := unix.ParseUnixRights(&ms[0])
		if err != nil || len(fds) != 1 {
			t.Fatalf("%v, %v", fds, err)
		}
		_ = unix.Close(fds[0])
	}
	_, err = c.(net.PacketConn).WriteTo([]byte("x"), client.LocalAddr())
	_, want := client.(net.PacketConn).WriteTo([]byte("x"), c.LocalAddr())
	if err == nil || want == nil {
		t.Errorf("WriteTo an address: %v, package net says %v", err, want)
	}
}
