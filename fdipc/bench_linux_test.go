package fdipc_test

import (
	"context"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

// One op is one frame of 64 bytes, sent and handled, on a lane that is kept full.
func BenchmarkSend64(b *testing.B) { benchSend(b, 64) }

// One op is one frame of 1 KiB.
func BenchmarkSend1024(b *testing.B) { benchSend(b, 1024) }

func benchSend(b *testing.B, size int) {
	l, r, err := fdipc.Socketpair()
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	n := 0
	ca, err := fdipc.New(l, fdipc.Config{Handler: ignore})
	if err != nil {
		b.Fatal(err)
	}
	cb, err := fdipc.New(r, fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) {
		if f.Kind == 0x41 {
			close(done)
		}
		n++
	}})
	if err != nil {
		b.Fatal(err)
	}
	defer ca.Close()
	defer cb.Close()
	f := &fdipc.Frame{Kind: 0x40, Lane: fdipc.Data, Payload: make([]byte, size)}
	ctx := context.Background()
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if err := ca.Send(ctx, f); err != nil {
			b.Fatal(err)
		}
	}
	f.Kind = 0x41
	_ = ca.Send(ctx, f)
	<-done
}

// One op is one descriptor: duplicated, sent 16 to a frame, claimed, closed on both sides.
func BenchmarkHandles16(b *testing.B) {
	l, r, err := fdipc.Socketpair()
	if err != nil {
		b.Fatal(err)
	}
	src, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(src)
	done := make(chan struct{})
	ca, err := fdipc.New(l, fdipc.Config{Handler: ignore, Credits: 1024})
	if err != nil {
		b.Fatal(err)
	}
	cb, err := fdipc.New(r, fdipc.Config{Credits: 1024, Handler: func(_ *fdipc.Conn, f *fdipc.Frame) {
		if f.Kind == 0x41 {
			close(done)
		}
		for _, h := range f.Handles {
			_ = h.Claim()
			h.Close()
		}
	}})
	if err != nil {
		b.Fatal(err)
	}
	defer ca.Close()
	defer cb.Close()
	ctx := context.Background()
	b.ReportAllocs()
	var hs []*fdipc.Handle
	for b.Loop() {
		fd, _, _ := syscall.RawSyscall(unix.SYS_FCNTL, uintptr(src), unix.F_DUPFD_CLOEXEC, 0)
		if hs = append(hs, fdipc.HandleFD(int(fd))); len(hs) == 16 {
			if err := ca.Send(ctx, &fdipc.Frame{Kind: 0x40, Lane: fdipc.Data, Handles: hs}); err != nil {
				b.Fatal(err)
			}
			hs = hs[:0]
		}
	}
	_ = ca.Send(ctx, &fdipc.Frame{Kind: 0x41, Lane: fdipc.Data})
	<-done
}
