package fdipc_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/fdipc/fdipctest"
)

// A named socket talks to whom it may, and counts the others.
func TestNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	admit := make(chan bool, 2)
	l, err := fdipc.Listen(path, func(c fdipc.Credentials) bool {
		if c.PID != os.Getpid() || c.UID != os.Getuid() || c.GID != os.Getgid() {
			t.Errorf("credentials %+v", c)
		}
		return <-admit
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, ok := range []bool{true, false} {
		admit <- ok
		got := make(chan string, 1)
		dialed, err := fdipc.Dial(context.Background(), path, fdipc.Config{Handler: ignore})
		if err != nil {
			t.Fatal(err)
		}
		c, err := l.Accept(fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { got <- string(f.Payload) }})
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			if err := dialed.Send(context.Background(), &fdipc.Frame{Kind: 0x40, Payload: []byte("hello")}); err != nil {
				t.Fatal(err)
			}
			if s := wait(t, "frame", got); s != "hello" {
				t.Error(s)
			}
			c.Close()
		} else {
			wait(t, "end", c.Done())
			if !errors.Is(c.Err(), fdipc.ErrStranger) || l.Strangers() != 1 {
				t.Errorf("%v, %d strangers", c.Err(), l.Strangers())
			}
		}
		wait(t, "end", dialed.Done())
	}
}

// The other ends of a Conn that a caller can meet, each through the public API.
func TestEnds(t *testing.T) {
	raw := func() (*os.File, *os.File) {
		l, r, err := fdipc.Socketpair()
		if err != nil {
			t.Fatal(err)
		}
		return l, r
	}
	end := func(f *os.File, cfg fdipc.Config) error {
		cfg.Handler = ignore
		c, err := fdipc.New(f, cfg)
		if err != nil {
			t.Fatal(err)
		}
		wait(t, "end", c.Done())
		return c.Err()
	}
	t.Run("ErrPeerLost", func(t *testing.T) {
		l, r := raw()
		r.Close()
		if err := end(l, fdipc.Config{}); !errors.Is(err, fdipc.ErrPeerLost) {
			t.Error(err)
		}
	})
	t.Run("ErrHandshake", func(t *testing.T) {
		l, r := raw()
		defer r.Close()
		if err := end(l, fdipc.Config{HandshakeTimeout: time.Millisecond}); !errors.Is(err, fdipc.ErrHandshake) {
			t.Error(err)
		}
	})
	t.Run("ErrProtocol", func(t *testing.T) {
		l, r := raw()
		defer r.Close()
		_, _ = r.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		if err := end(l, fdipc.Config{}); !errors.Is(err, fdipc.ErrProtocol) {
			t.Error(err)
		}
	})
	t.Run("ErrVersion", func(t *testing.T) {
		l, r := raw()
		defer r.Close()
		_, _ = r.Write(fdipc.HelloOf(2, 3))
		if err := end(l, fdipc.Config{}); !errors.Is(err, fdipc.ErrVersion) {
			t.Error(err)
		}
	})
	t.Run("not a channel", func(t *testing.T) {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		before := fdipctest.Leaks(t)
		if _, err := fdipc.New(f, fdipc.Config{Handler: ignore}); err == nil {
			t.Error("New took it")
		}
		before()
	})
	t.Run("bad Config", func(t *testing.T) {
		l, r := raw()
		defer r.Close()
		_, err := fdipc.New(l, fdipc.Config{Credits: -1, QueueBytes: 1 << 31})
		if err == nil || !strings.Contains(err.Error(), "Credits") || !strings.Contains(err.Error(), "QueueBytes") || !strings.Contains(err.Error(), "Handler") {
			t.Error(err)
		}
	})
	t.Run("blocking descriptor", func(t *testing.T) {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan struct{})
		a, err := fdipc.New(os.NewFile(uintptr(p[0]), "a"), fdipc.Config{Handler: ignore})
		if err != nil {
			t.Fatal(err)
		}
		b, err := fdipc.New(os.NewFile(uintptr(p[1]), "b"), fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) { close(got) }})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Send(context.Background(), &fdipc.Frame{Kind: 0x40}); err != nil {
			t.Fatal(err)
		}
		wait(t, "frame", got)
		a.Close()
		wait(t, "end", b.Done())
	})
}
