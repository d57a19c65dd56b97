//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"golang.org/x/sys/unix"

	coppice "github.com/coppice-go/coppice/runtime"
)

// failed is a report of an error from Listen.
func failed(err error) workerReport {
	r := workerReport{Error: err.Error()}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		r.Errno = uint64(errno)
	}
	if _, ok := errors.AsType[*net.OpError](err); !ok {
		r.Error = "not a *net.OpError: " + r.Error
	}
	return r
}

func init() {
	for _, policy := range []coppice.Policy{coppice.RoundRobin, coppice.Shared} {
		trees["port zero "+policy.String()] = func() coppice.Config {
			return pool(2, func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.ListenSpec(ctx, coppice.ListenerSpec{Network: "tcp", Address: "127.0.0.1:0", Policy: policy})
				if err != nil {
					return err
				}
				if err := tell(ctx, w, workerReport{Addr: ln.Addr().String()}); err != nil {
					return err
				}
				return w.Serve(ctx, ln, name(w))
			})
		}
	}
	trees["port by slot"] = func() coppice.Config {
		return pool(2, func(ctx context.Context, w *coppice.Worker) error {
			base, err := strconv.Atoi(os.Getenv("COPPICE_TEST_PORT"))
			if err != nil {
				return err
			}
			ln, err := w.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+w.Slot()))
			if err != nil {
				return err
			}
			if err := tell(ctx, w, workerReport{Addr: ln.Addr().String()}); err != nil {
				return err
			}
			return w.Serve(ctx, ln, name(w))
		})
	}
	trees["master's descriptor"] = func() coppice.Config {
		return pool(1, func(ctx context.Context, w *coppice.Worker) error {
			fd, err := strconv.Atoi(os.Getenv("COPPICE_TEST_FD"))
			if err != nil {
				return err
			}
			// The worker's own descriptor of that number is a file.
			f, err := os.CreateTemp("", "")
			if err != nil {
				return err
			}
			defer os.Remove(f.Name())
			if err := unix.Dup3(int(f.Fd()), fd, unix.O_CLOEXEC); err != nil {
				return err
			}
			ln, err := w.ListenSpec(ctx, coppice.ListenerSpec{FD: fd})
			if err != nil {
				return err
			}
			if err := tell(ctx, w, workerReport{Addr: ln.Addr().String()}); err != nil {
				return err
			}
			return w.Serve(ctx, ln, name(w))
		})
	}
	trees["adopt"] = func() coppice.Config {
		return pool(2, func(ctx context.Context, w *coppice.Worker) error {
			own, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			ln := w.Adopt(own)
			if err := tell(ctx, w, workerReport{Addr: ln.Addr().String()}); err != nil {
				return err
			}
			return w.Serve(ctx, ln, name(w))
		})
	}
	trees["share"] = func() coppice.Config {
		return pool(2, func(ctx context.Context, w *coppice.Worker) error {
			l := coppice.ListenerSpec{Name: "given"}
			var ln net.Listener
			var err error
			if w.Slot() == 0 { // it opens, and gives
				own, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				if ln, err = w.Share(ctx, l, own); err != nil {
					return err
				}
			} else if ln, err = w.AwaitListener(ctx, l.Name); err != nil {
				return err
			}
			// The first worker needs it no longer, once the other has it too.
			_, err = w.System().Spawn(ctx, "closer", func() actor.Actor {
				return actor.ReceiveFunc(func(ctx actor.Context) {
					if ctx.Message() == "close" {
						ctx.Respond(ln.Close() == nil)
					}
				})
			})
			if err != nil {
				return err
			}
			if err := tell(ctx, w, workerReport{Addr: ln.Addr().String()}); err != nil {
				return err
			}
			if w.Slot() != 0 {
				return w.Serve(ctx, ln, name(w))
			}
			<-ctx.Done()
			return nil
		})
	}
	trees["listen errors"] = func() coppice.Config {
		return pool(1, func(ctx context.Context, w *coppice.Worker) error {
			network, address, _ := strings.Cut(os.Getenv("COPPICE_TEST_LISTEN"), " ")
			l := coppice.ListenerSpec{Network: network, Address: address}
			if network == "fd" {
				fd, err := strconv.Atoi(address)
				if err != nil {
					return err
				}
				l = coppice.ListenerSpec{FD: fd}
			}
			_, err := w.ListenSpec(ctx, l)
			if err == nil {
				return errors.New("it listens")
			}
			if err := tell(ctx, w, failed(err)); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
	}
	trees["listener in the tree"] = func() coppice.Config {
		return coppice.Config{Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "http", Network: "tcp", Address: "127.0.0.1:0"},
			coppice.Pool{Name: "web", Size: 1, Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listener(ctx, "http")
				if err != nil {
					return err
				}
				return w.Serve(ctx, ln, name(w))
			}},
		}}
	}
}

// TestPortZero: port 0 is chosen once and then equal for all workers.
func TestPortZero(t *testing.T) {
	for _, policy := range []coppice.Policy{coppice.RoundRobin, coppice.Shared} {
		t.Run(policy.String(), func(t *testing.T) {
			p := startTree(t, "port zero "+policy.String())
			got := p.reported(2)
			if got[0].Addr != got[1].Addr {
				t.Errorf("the workers listen on %s and %s", got[0].Addr, got[1].Addr)
			}
			get(t, got[0].Addr)
		})
	}
}

// TestPortBySlot: a worker computes its own port from its slot.
func TestPortBySlot(t *testing.T) {
	base := freePorts(t)
	t.Setenv("COPPICE_TEST_PORT", strconv.Itoa(base))
	p := startTree(t, "port by slot")
	got := p.reported(2)
	for slot := range 2 {
		if want := strconv.Itoa(slot); got[slot].Addr != fmt.Sprintf("127.0.0.1:%d", base+slot) || get(t, got[slot].Addr) != want {
			t.Errorf("slot %d listens on %s", slot, got[slot].Addr)
		}
	}
}

// freePorts returns the lower of two neighbouring ports that are free. They stay free: the kernel
// gives neither to a socket that asks for any port (ip_local_port_range).
func freePorts(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 20_000 + rand.IntN(12_000)
		a, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		b, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port+1))
		a.Close()
		if err == nil {
			b.Close()
			return port
		}
	}
	t.Skip("needs two neighbouring free ports on 127.0.0.1")
	return 0
}

// TestMasterDescriptor: a number means the master's descriptor, whatever the worker has open under
// it (N96, N100).
func TestMasterDescriptor(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	const fd = 207 // as good as 7, which the test binary may be using itself
	if err := unix.Dup3(int(f.Fd()), fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	f.Close()
	ln.Close()
	t.Cleanup(func() { unix.Close(fd) })
	t.Setenv("COPPICE_TEST_FD", strconv.Itoa(fd))
	p := startTree(t, "master's descriptor")
	got := p.reported(1)[0]
	if got.Addr != ln.Addr().String() || get(t, got.Addr) != "0" {
		t.Errorf("the worker listens on %s, the master's %d is %s", got.Addr, fd, ln.Addr())
	}
}

// TestAdopt: an explicit handle is used as it is, and the master never learns of it (N103).
func TestAdopt(t *testing.T) {
	p := startTree(t, "adopt")
	got := p.reported(2)
	if got[0].Addr == got[1].Addr {
		t.Errorf("both listen on %s", got[0].Addr)
	}
	for slot := range 2 {
		if answer := get(t, got[slot].Addr); answer != strconv.Itoa(slot) {
			t.Errorf("slot %s answers at the listener of slot %d", answer, slot)
		}
	}
	if held := p.Listeners(); len(held) != 0 {
		t.Errorf("the master holds %v", held)
	}
}

// TestShare: a worker gives the master a listener, and a sibling serves it.
func TestShare(t *testing.T) {
	p := startTree(t, "share")
	got := p.reported(2)
	if got[0].Addr != got[1].Addr {
		t.Errorf("shared %s, the sibling listens on %s", got[0].Addr, got[1].Addr)
	}
	closed, err := p.System().Ask(t.Context(), p.Lookup("web/0/closer"), "close")
	if closed != true || err != nil {
		t.Fatalf("close: %v, %v", closed, err)
	}
	if answer := get(t, got[0].Addr); answer != "1" {
		t.Errorf("slot %s answers, want the sibling", answer)
	}
}

// TestListenErrors: a worker gets the error that net.Listen would have returned.
func TestListenErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, tt := range []struct {
		name, listen string
		errno        syscall.Errno
		skip         string
	}{
		{name: "taken port", listen: "tcp " + taken.Addr().String(), errno: syscall.EADDRINUSE},
		{name: "no socket", listen: "fd " + strconv.Itoa(int(null.Fd())), errno: syscall.EINVAL},
		{name: "closed number", listen: "fd 9999", errno: syscall.EINVAL},
		{name: "privileged port", listen: "tcp 127.0.0.1:42", errno: syscall.EACCES, skip: "needs a user without CAP_NET_BIND_SERVICE"},
		{name: "foreign address", listen: "tcp 192.0.2.1:0", errno: syscall.EADDRNOTAVAIL},
		{name: "no directory", listen: "unix /nonexistent/s", errno: syscall.ENOENT},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.skip != "" && os.Getuid() == 0 {
				t.Skip(tt.skip)
			}
			t.Setenv("COPPICE_TEST_LISTEN", tt.listen)
			p := startTree(t, "listen errors")
			if r := p.reported(1)[0]; syscall.Errno(r.Errno) != tt.errno || strings.HasPrefix(r.Error, "not a") {
				t.Errorf("error %q, want %v", r.Error, tt.errno)
			}
		})
	}
}

// TestListenerInTree: a socket may be a child of the tree.
func TestListenerInTree(t *testing.T) {
	p := startTree(t, "listener in the tree")
	held := p.Listeners()
	if len(held) != 1 || held[0].Name != "http" {
		t.Fatalf("the master holds %v", held)
	}
	if answer := get(t, held[0].Addr.String()); answer != "0" {
		t.Errorf("answer %q", answer)
	}
}
