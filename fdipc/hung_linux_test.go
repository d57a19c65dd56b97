package fdipc_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

const (
	kindRefuse  fdipc.Kind = 0x60 + iota // what the receiver does with the handle
	kindClose                            // claims and closes it
	kindLook                             // asks for its kind
	kindFile                             // makes a file of it
	kindCollect                          // collect garbage, and tell
)

func init() {
	roles["hostage"] = func(f *os.File, _ map[string]string) {
		c, err := fdipc.New(f, fdipc.Config{Handler: func(c *fdipc.Conn, f *fdipc.Frame) {
			switch f.Kind {
			case kindRefuse:
				f.Refuse(1)
			case kindClose:
				_ = f.Handles[0].Claim()
				f.Handles[0].Close()
			case kindLook:
				if k := f.Handles[0].Kind(); k != fdipc.HandleFile {
					panic(k)
				}
				f.Handles[0].Close()
			case kindFile:
				_, _ = f.Handles[0].File() // its finalizer may wait, as any *os.File's
			}
			runtime.GC()
			_ = c.TrySend(&fdipc.Frame{Kind: kindCollect})
		}})
		if err != nil {
			panic(err)
		}
		<-c.Done()
		os.Exit(0)
	}
}

// hungFile opens a file of a file system that answers nothing after that: neither a close nor a
// question. It is for root, who may mount one; without, the test is skipped.
//
// end has what waits go on, with an error: a process ends no sooner.
func hungFile(t *testing.T) (open func() int, end func()) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("a file system that hangs: /dev/fuse: %v", err)
	}
	dir := t.TempDir()
	if err := unix.Mount("hung", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)); err != nil {
		_ = unix.Close(fd)
		t.Skipf("a file system that hangs: mount: %v", err)
	}
	dev := os.NewFile(uintptr(fd), "fuse")
	served := make(chan struct{})
	go func() { // ends when dev is closed
		defer close(served)
		serveHung(dev)
	}()
	end = sync.OnceFunc(func() {
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		end()
		<-served
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return func() int {
		fd, err := unix.Open(filepath.Join(dir, "file"), unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}, end
}

// serveHung answers what it takes to open a file: see fuse(4) and linux/fuse.h.
func serveHung(dev *os.File) {
	const (
		lookup, getattr, open, initialize = 1, 3, 14, 26
		headIn, headOut, attrLen          = 40, 16, 88
	)
	attr := func(node uint64, mode uint32) []byte {
		b := make([]byte, attrLen)
		binary.NativeEndian.PutUint64(b, node)
		binary.NativeEndian.PutUint32(b[60:], mode)
		binary.NativeEndian.PutUint32(b[64:], 1) // links
		return b
	}
	buf := make([]byte, 1<<17)
	for {
		n, err := dev.Read(buf)
		if err != nil || n < headIn {
			return
		}
		out := make([]byte, headOut)
		node := binary.NativeEndian.Uint64(buf[16:])
		switch binary.NativeEndian.Uint32(buf[4:]) {
		case initialize:
			b := make([]byte, 64)
			binary.NativeEndian.PutUint32(b, 7)
			binary.NativeEndian.PutUint32(b[4:], 31)
			binary.NativeEndian.PutUint32(b[20:], 1<<16) // the longest write
			out = append(out, b...)
		case lookup:
			b := make([]byte, 40)
			binary.NativeEndian.PutUint64(b, 2)
			binary.NativeEndian.PutUint64(b[16:], 3600) // the name is known for so long; what it is, not at all
			out = append(append(out, b...), attr(2, unix.S_IFREG|0o666)...)
		case getattr:
			if node != 1 {
				continue
			}
			out = append(append(out, make([]byte, 16)...), attr(1, unix.S_IFDIR|0o777)...)
		case open:
			out = append(out, make([]byte, 16)...)
		default:
			continue
		}
		binary.NativeEndian.PutUint32(out, uint32(len(out)))
		copy(out[8:16], buf[8:16])
		if _, err := dev.Write(out); err != nil {
			return
		}
	}
}

// TestHungFile: a descriptor of a file system that does not answer is refused, closed, looked at
// and made a file of. The garbage collector of the receiver goes on, and so do its lane, the closes
// of what others sent, the sender that closes its own copy, and the end of both.
func TestHungFile(t *testing.T) {
	open, end := hungFile(t)
	defer end()
	told := make(chan struct{}, 1)
	c := spawn(t, fdipc.Config{
		Handler: func(*fdipc.Conn, *fdipc.Frame) { told <- struct{}{} },
		Resolved: func(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
			if o != fdipc.Claimed {
				h.Close()
			}
		},
	}, map[string]string{"ROLE": "hostage"})
	send := func(k fdipc.Kind, hs ...*fdipc.Handle) {
		t.Helper()
		if err := c.Send(context.Background(), &fdipc.Frame{Kind: k, Handles: hs}); err != nil {
			t.Fatal(err)
		}
		wait(t, fmt.Sprintf("the receiver, which does %#x with a file that hangs", k), told)
	}
	for _, k := range []fdipc.Kind{kindRefuse, kindClose, kindLook, kindFile, kindRefuse, kindClose} {
		send(k, fdipc.HandleFD(open()))
		runtime.GC()
	}
	// What nothing holds up is closed all the same: its other end reads the end.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	h, err := fdipc.HandleOf(w)
	if err != nil {
		t.Fatal(err)
	}
	send(kindClose, h)
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read of the pipe whose other end was closed: %v", err)
	}
	c.Close()
	wait(t, "end of the sender's Conn", c.Done())
}

// TestHungFileIsNoLane: what a peer sends in place of its data lane or of its claim table is looked
// at before it is used.
func TestHungFileIsNoLane(t *testing.T) {
	open, _ := hungFile(t)
	for n, what := range []string{"claim table", "data lane"} {
		t.Run(what, func(t *testing.T) {
			local, remote, err := fdipc.Socketpair()
			if err != nil {
				t.Fatal(err)
			}
			defer remote.Close()
			c, err := fdipc.New(local, fdipc.Config{Handler: ignore})
			if err != nil {
				t.Fatal(err)
			}
			table, err := fdipc.ClaimTable()
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(table)
			rc, err := remote.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			fd := open()
			fds := []int{fd, fd}
			copy(fds[:n], []int{table})
			if cerr := rc.Control(func(s uintptr) {
				err = unix.Sendmsg(int(s), fdipc.HelloWith(7, 3), unix.UnixRights(fds...), nil, 0)
			}); cerr != nil || err != nil {
				t.Fatal(cerr, err)
			}
			go unix.Close(fd) // ends with the file system
			wait(t, "end of the Conn", c.Done())
			runtime.GC()
			if !errors.Is(c.Err(), fdipc.ErrProtocol) {
				t.Errorf("error %v, want ErrProtocol", c.Err())
			}
		})
	}
}
