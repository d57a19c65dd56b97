package netactor_test

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/inspect"
)

// refused waits until the kernel refuses clients at an address, and returns the error that a client
// gets.
func refused(t *testing.T, a net.Addr) error {
	t.Helper()
	var got error
	until(t, "clients to be refused", func() bool {
		c, err := net.Dial(a.Network(), a.String())
		if err != nil {
			got = err
			return true
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(deadline))
		if _, err = c.Write([]byte("x")); err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		got = err
		return err != nil
	})
	return got
}

// TestPoolGone: the last pool that used a listener of the tree is gone for good. Clients in the
// backlog are refused at once, and later ones too; the listener shows it, and is there again when a
// pool asks for it.
func TestPoolGone(t *testing.T) {
	for _, tt := range []struct {
		network string
		policy  netactor.Policy
	}{
		{"tcp", netactor.RoundRobin},
		{"tcp", netactor.Shared},
		{"tcp", netactor.ReusePort},
		{"unix", netactor.RoundRobin},
		{"unix", netactor.Shared},
		{"unixpacket", netactor.RoundRobin},
	} {
		t.Run(fmt.Sprint(tt.network, " ", tt.policy), func(t *testing.T) {
			tr := newTree(t, false)
			r := netactor.Request{Name: "front", Network: tt.network, Address: "127.0.0.1:0", Policy: tt.policy}
			if tt.network != "tcp" {
				r.Address = filepath.Join(t.TempDir(), "s")
			}
			a, err := tr.table.Open(testContext(t), "front", r)
			if err != nil {
				t.Fatal(err)
			}
			asked := netactor.Request{Name: "front"}
			w := tr.worker(0)
			go serveID(w.mustListen(asked), "a")
			ask(t, a.Network(), a.String())
			w.kill()
			waits := make(chan error, 1)
			c, err := net.Dial(a.Network(), a.String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			go func() {
				_, err := c.Read(make([]byte, 1))
				waits <- err
			}()
			if got := tr.table.Gone("another"); got != nil || tr.table.Sockets()[0].Paused {
				t.Fatalf("refused for another pool: %v", got)
			}
			if got := tr.table.Gone("web"); len(got) != 1 || got[0] != "front" {
				t.Fatalf("refusing: %v", got)
			}
			select {
			case err := <-waits:
				if err == nil {
					t.Error("the client that waited got something")
				}
			case <-time.After(deadline):
				t.Fatal("the client that waited hangs")
			}
			if err := refused(t, a); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a later client: %v", err)
			}
			if s := tr.table.Sockets()[0]; !s.Paused || !s.Refuses || s.Address != a.String() {
				t.Errorf("shown: %+v", s)
			}
			ln := tr.worker(0).mustListen(asked)
			if s := tr.table.Sockets()[0]; s.Paused || s.Refuses {
				t.Errorf("shown: %+v", s)
			}
			go serveID(ln, "b")
			until(t, "an answer", func() bool { s, _ := tryAsk(a.Network(), a.String()); return s == "b" })
			ask(t, a.Network(), a.String())
		})
	}
}

// TestPoolGonePacket is TestPoolGone for datagrams: their senders are refused too.
func TestPoolGonePacket(t *testing.T) {
	for _, tt := range []struct {
		network, address string
		want             error
	}{
		{"udp", "127.0.0.1:0", syscall.ECONNREFUSED},
		{"udp", ":0", syscall.ECONNREFUSED},
		{"udp4", ":0", syscall.ECONNREFUSED},
		{"unixgram", "", syscall.EPERM},
	} {
		t.Run(tt.network+tt.address, func(t *testing.T) {
			tr := newTree(t, false)
			if tt.network == "unixgram" {
				tt.address = filepath.Join(t.TempDir(), "s")
			}
			a, err := tr.table.Open(testContext(t), "dns", netactor.Request{Name: "dns", Network: tt.network, Address: tt.address})
			if err != nil {
				t.Fatal(err)
			}
			to := a.String()
			if u, ok := a.(*net.UDPAddr); ok && u.IP.IsUnspecified() {
				to = fmt.Sprintf("127.0.0.1:%d", u.Port)
			}
			w := tr.worker(0)
			if _, err := w.ls.ListenPacket(testContext(t), netactor.Request{Name: "dns"}); err != nil {
				t.Fatal(err)
			}
			w.kill()
			tr.table.Gone("web")
			c, err := net.Dial(tt.network, to)
			if err == nil {
				defer c.Close()
				until(t, "datagrams to be refused", func() bool {
					_, err = c.Write([]byte("x"))
					return err != nil
				})
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			pc, err := tr.worker(0).ls.ListenPacket(testContext(t), netactor.Request{Name: "dns"})
			if err != nil {
				t.Fatal(err)
			}
			c2, err := net.Dial(tt.network, to) // a Unix socket is another one now
			if err != nil {
				t.Fatal(err)
			}
			defer c2.Close()
			if _, err := c2.Write([]byte("again")); err != nil {
				t.Fatal(err)
			}
			_ = pc.SetReadDeadline(time.Now().Add(deadline))
			b := make([]byte, 9)
			if n, _, err := pc.ReadFrom(b); err != nil || string(b[:n]) != "again" {
				t.Errorf("%q, %v", b[:n], err)
			}
		})
	}
}

// TestRefuse: a listener with live workers refuses new clients until Resume, also when the listener
// process is replaced meanwhile; the connections that the workers have go on.
func TestRefuse(t *testing.T) {
	for _, p := range []netactor.Policy{netactor.RoundRobin, netactor.Shared, netactor.ReusePort} {
		t.Run(p.String(), func(t *testing.T) {
			tr := newTree(t, false)
			r := loopback
			r.Policy = p
			ln := tr.worker(0).mustListen(r)
			echo := make(chan net.Conn, 1)
			open, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer open.Close()
			served, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer served.Close()
			if !tr.table.Refuse(1) || tr.table.Refuse(1) {
				t.Fatal("Refuse returns false, or true again")
			}
			until(t, "clients to be refused", func() bool { // Refuse does not wait for the kernel
				c, err := net.Dial("tcp", ln.Addr().String())
				if err == nil {
					c.Close()
				}
				return errors.Is(err, syscall.ECONNREFUSED)
			})
			go func() {
				defer close(echo)
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					if _, err := c.Read(make([]byte, 1)); err == nil {
						echo <- c
						return
					}
					c.Close() // one of those above
				}
			}()
			tr.killListener()
			tr.startListener()
			if err := refused(t, ln.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a client of the next listener process: %v", err)
			}
			if _, err := served.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			if _, err := open.Read(make([]byte, 1)); err != nil {
				t.Errorf("a connection of before: %v", err)
			}
			if !tr.table.Resume(1) || tr.table.Sockets()[0].Refuses {
				t.Error("not resumed")
			}
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			select {
			case got := <-echo:
				if got == nil {
					t.Fatal("the listener of the worker has ended")
				}
				got.Close()
			case <-time.After(deadline):
				t.Fatal("not accepted after Resume")
			}
		})
	}
}

// TestRefuseGiven: a socket from outside is not shut down, because other programs may have it; its
// clients are reset.
func TestRefuseGiven(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	tr := newTree(t, false)
	rc, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = rc.Control(func(fd uintptr) {
		_, err = tr.table.Open(testContext(t), "front", netactor.Request{Name: "front", FD: int(fd)})
	})
	if err != nil {
		t.Fatal(err)
	}
	w := tr.worker(0)
	w.mustListen(netactor.Request{Name: "front"})
	w.kill()
	tr.table.Gone("web")
	if err := refused(t, ln.Addr()); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("a client: %v", err)
	}
	tr.quiet()
	inspect.LookAt(tr.table, func(v inspect.TableView) {
		if s, ok := socketOf(v, 1, 0); !ok || !s.Listening() {
			t.Error("the socket was shut down")
		}
	})
	go serveID(tr.worker(0).mustListen(netactor.Request{Name: "front"}), "b")
	until(t, "an answer", func() bool { s, _ := tryAsk("tcp", ln.Addr().String()); return s == "b" })
}
