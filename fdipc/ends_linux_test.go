package fdipc_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

// The ends of a Conn that a caller can meet, each through the public API.
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
	for what, h := range map[string][]byte{
		"the claim table":         fdipc.HelloWith(6, 0),
		"the data lane":           fdipc.HelloWith(5, 0),
		"what is known at accept": fdipc.HelloWith(3, 0),
		"their descriptors":       fdipc.HelloWith(7, 0),
	} {
		t.Run("ErrFeature: without "+what, func(t *testing.T) {
			l, r := raw()
			defer r.Close()
			_, _ = r.Write(h)
			if err := end(l, fdipc.Config{}); !errors.Is(err, fdipc.ErrFeature) {
				t.Error(err)
			}
		})
	}
	t.Run("not a channel", func(t *testing.T) {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		before := leaks(t)
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
