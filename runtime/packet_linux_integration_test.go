//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor/listen"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// echoPackets answers each datagram with the worker's name and incarnation until ctx ends. What it
// has read by then it answers.
func echoPackets(ctx context.Context, w *coppice.Worker, pc net.PacketConn) error {
	defer pc.Close()
	defer context.AfterFunc(ctx, func() { _ = pc.SetReadDeadline(time.Unix(1, 0)) })()
	b := make([]byte, 2048)
	for {
		_, from, err := pc.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := pc.WriteTo(fmt.Append(nil, w.Name(), " ", w.Generation()), from); err != nil {
			return err
		}
	}
}

func init() {
	for _, policy := range []coppice.Policy{coppice.RoundRobin, coppice.ReusePort} {
		trees["packets "+policy.String()] = func() coppice.Config {
			return pool(2, func(ctx context.Context, w *coppice.Worker) error {
				pc, err := w.ListenPacketSpec(ctx, coppice.ListenerSpec{Network: "udp", Address: "127.0.0.1:0", Policy: policy})
				if err != nil {
					return err
				}
				if err := tell(ctx, w, workerReport{Addr: pc.LocalAddr().String(), Text: fmt.Sprintf("%T", pc)}); err != nil {
					return err
				}
				return echoPackets(ctx, w, pc)
			})
		}
	}
	trees["a packet service of systemd's"] = func() coppice.Config {
		if !coppice.IsChild() && os.Getenv("LISTEN_FDS") != "" {
			os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())) // as systemd does, between fork and exec
		}
		return coppice.Config{Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "dns", SystemdName: "dns", Network: "udp", Address: "127.0.0.1:0"},
			coppice.Pool{Name: "web", Size: 1, Worker: func(ctx context.Context, w *coppice.Worker) error {
				pc, err := w.PacketConn(ctx, "dns")
				if err != nil {
					return err
				}
				fmt.Println("serving")
				return errors.Join(w.Ready(), echoPackets(ctx, w, pc))
			}},
		}}
	}
	trees["packets of the tree"] = func() coppice.Config {
		fd, _ := strconv.Atoi(os.Getenv("COPPICE_TEST_FD"))
		return coppice.Config{Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "number", FD: fd},
			coppice.ListenerSpec{Name: "gram", Network: "unixgram", Address: os.Getenv("COPPICE_TEST_GRAM"), Mode: 0o600},
			coppice.ListenerSpec{Name: "stream", Network: "tcp", Address: "127.0.0.1:0"},
			coppice.Pool{Name: "web", Size: 1, Worker: func(ctx context.Context, w *coppice.Worker) error {
				for _, ask := range []func() (net.PacketConn, error){
					func() (net.PacketConn, error) { return w.PacketConn(ctx, "stream") },
					func() (net.PacketConn, error) { return w.ListenPacket("tcp", "127.0.0.1:0") },
				} {
					if pc, err := ask(); err == nil {
						return fmt.Errorf("a packet socket %v of a listener", pc.LocalAddr())
					}
				}
				if ln, err := w.Listener(ctx, "number"); err == nil {
					return fmt.Errorf("a listener %v of a packet socket", ln.Addr())
				}
				gram, err := w.PacketConn(ctx, "gram")
				if err != nil {
					return err
				}
				number, err := w.PacketConn(ctx, "number")
				if err != nil {
					return err
				}
				if err := tell(ctx, w, workerReport{Addr: number.LocalAddr().String(), Text: gram.LocalAddr().String()}); err != nil {
					return err
				}
				done := make(chan error, 1)
				go func() { done <- echoPackets(ctx, w, gram) }()
				return errors.Join(echoPackets(ctx, w, number), <-done)
			}},
		}}
	}
}

// TestPacketActivation: a datagram socket of systemd's is served by its name.
func TestPacketActivation(t *testing.T) {
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	f, err := udp.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := runtimetest.StartWith(t, []string{
		treeVar + "=a packet service of systemd's", "LISTEN_FDS=1", "LISTEN_FDNAMES=dns",
	}, []*os.File{f})
	p.Await("serving")
	c, err := net.Dial("udp", udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s := said(t, c); s != "web/0 1" {
		t.Errorf("answer %q", s)
	}
	p.Signal(unix.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// said sends a datagram and returns the answer.
func said(t *testing.T, c net.Conn) string {
	t.Helper()
	b := make([]byte, 2048)
	_ = c.SetDeadline(time.Now().Add(runtimetest.Patience))
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// TestListenPacket: workers share a UDP socket, whatever the policy; it survives all of them, and a
// reload; it cannot be paused.
func TestListenPacket(t *testing.T) {
	for _, policy := range []coppice.Policy{coppice.RoundRobin, coppice.ReusePort} {
		t.Run(policy.String(), func(t *testing.T) {
			p := startTree(t, "packets "+policy.String())
			got := p.reported(2)
			if got[0].Addr != got[1].Addr || got[0].Text != "*listen.UDPConn" {
				t.Errorf("the workers have %s %s and %s", got[0].Text, got[0].Addr, got[1].Addr)
			}
			held := p.Listeners()
			if len(held) != 1 || held[0].Addr.Network() != "udp" || held[0].Addr.String() != got[0].Addr {
				t.Fatalf("the master holds %v", held)
			}
			if err := p.PauseListener(got[0].Addr); !errors.Is(err, coppice.ErrUnsupported) {
				t.Errorf("pause: %v", err)
			}
			// As DNS has it: the same address twice. The one that can be paused is meant.
			switch err := p.StartChild(t.Context(), "", coppice.ListenerSpec{Name: "both", Network: "tcp", Address: got[0].Addr}); {
			case errors.Is(err, unix.EADDRINUSE): // another program's
			case err != nil:
				t.Fatal(err)
			default:
				if err := p.PauseListener(got[0].Addr); err != nil {
					t.Errorf("pause of the TCP listener at the same address: %v", err)
				}
				if err := p.TerminateChild(t.Context(), "both"); err != nil {
					t.Fatal(err)
				}
			}
			c, err := net.Dial("udp", got[0].Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if s := said(t, c); s != "web/0 1" && s != "web/1 1" {
				t.Errorf("answer %q", s)
			}
			if err := p.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
			p.reported(2)
			runtimetest.Eventually(t, "an answer of the new workers", func() bool { // an old one that drains may have read first
				return strings.HasSuffix(said(t, c), " 2")
			})
			if held := p.Listeners(); len(held) != 1 || held[0].Addr.String() != got[0].Addr {
				t.Errorf("after the reload the master holds %v", held)
			}
		})
	}
}

// TestPacketListenerInTree: a packet socket may be a child of the tree, by address or by a
// descriptor of the master's; it is no listener, and a listener is none.
func TestPacketListenerInTree(t *testing.T) {
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const fd = 208
	rc, err := udp.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if cerr := rc.Control(func(n uintptr) { err = unix.Dup3(int(n), fd, unix.O_CLOEXEC) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	udp.Close()
	dir := t.TempDir()
	path := filepath.Join(dir, "gram")
	t.Setenv("COPPICE_TEST_FD", strconv.Itoa(fd))
	t.Setenv("COPPICE_TEST_GRAM", path)
	p := startTree(t, "packets of the tree")
	got := p.reported(1)[0]
	if got.Addr != udp.LocalAddr().String() || got.Text != path {
		t.Errorf("the worker has %s and %s", got.Addr, got.Text)
	}
	c, err := net.Dial("udp", got.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s := said(t, c); s != "web/0 1" {
		t.Errorf("answer %q", s)
	}
	g, err := net.DialUnix("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(dir, "from")}, &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if s := said(t, g); s != "web/0 1" {
		t.Errorf("answer %q", s)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// TestListenPacketAlone: without a master ListenPacket is net.ListenPacket, with the same type of
// result and the same life of a path.
func TestListenPacketAlone(t *testing.T) {
	w := new(coppice.Worker)
	path := filepath.Join(t.TempDir(), "s")
	for _, tt := range []struct{ network, address, typ string }{
		{"udp", "127.0.0.1:0", "*listen.UDPConn"},
		{"udp4", "127.0.0.1:0", "*listen.UDPConn"},
		{"udp6", "[::1]:0", "*listen.UDPConn"},
		{"unixgram", path, "*listen.UnixgramConn"},
	} {
		pc, err := w.ListenPacket(tt.network, tt.address)
		if err != nil {
			t.Fatal(err)
		}
		if typ := fmt.Sprintf("%T", pc); typ != tt.typ {
			t.Errorf("%s is a %s", tt.network, typ)
		}
		if _, err := w.ListenPacket(pc.LocalAddr().Network(), pc.LocalAddr().String()); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("%s twice: %v", tt.network, err)
		}
		if err := pc.Close(); err != nil {
			t.Error(err)
		}
		if err := pc.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: second close: %v", tt.network, err)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the path: %v", err)
	}
	if _, err := w.ListenPacketSpec(t.Context(), coppice.ListenerSpec{FD: 3}); !errors.Is(err, coppice.ErrUnsupported) {
		t.Errorf("by number: %v", err)
	}
	if _, err := w.ListenPacket("tcp", "127.0.0.1:0"); err == nil {
		t.Error("a packet socket of TCP")
	}
	var _ *net.UDPConn = new(listen.UDPConn).UDPConn // for callers that need the type itself
}
