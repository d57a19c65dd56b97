//go:build linux

package coppice_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	coppice "github.com/coppice-go/coppice/runtime"
)

// controls counts the calls of a Control in this process.
var controls atomic.Int64

func init() {
	trees["socket options"] = func() coppice.Config {
		var names []string
		var children []coppice.ChildSpec
		for _, p := range []coppice.Policy{coppice.RoundRobin, coppice.Shared, coppice.ReusePort} {
			names = append(names, p.String())
			children = append(children, coppice.ListenerSpec{
				Name: p.String(), Network: "tcp", Address: "127.0.0.1:0", Policy: p,
				Options: coppice.SocketOptions{KeepAliveIdle: 71 * time.Second, Delay: true, ReceiveBuffer: 20000},
				Hooks: coppice.ListenerHooks{Control: func(_, _ string, c syscall.RawConn) error {
					controls.Add(1)
					var err error
					if cerr := c.Control(func(fd uintptr) {
						err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 4321)
					}); cerr != nil {
						return cerr
					}
					return err
				}},
			})
		}
		return coppice.Config{Children: append(children, coppice.Pool{Name: "web", Size: 2, Worker: func(ctx context.Context, w *coppice.Worker) error {
			for _, name := range names {
				ln, err := w.Listener(ctx, name)
				if err != nil {
					return err
				}
				go tellOptions(ln)
			}
			if err := w.Ready(); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		}})}
	}
}

// tellOptions answers each connection of ln with the options that it has, and how often a Control
// was called in this process.
func tellOptions(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		if rc, err := c.(syscall.Conn).SyscallConn(); err == nil {
			_ = rc.Control(func(fd uintptr) {
				get := func(level, name int) int {
					v, err := unix.GetsockoptInt(int(fd), level, name)
					if err != nil {
						return -1
					}
					return v
				}
				_, _ = fmt.Fprint(c, get(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE), get(unix.IPPROTO_TCP, unix.TCP_NODELAY),
					get(unix.SOL_SOCKET, unix.SO_RCVBUF), get(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT), controls.Load())
			})
		}
		_ = c.Close()
	}
}

// TestSocketOptions: the socket options of a ListenerSpec of the tree are in effect for the
// connections that workers accept, and so is what its Control does, which runs in the master alone.
func TestSocketOptions(t *testing.T) {
	before := controls.Load()
	p := startTree(t, "socket options")
	for _, l := range p.Listeners() {
		for range 4 {
			if s, err := answerOf(l.Addr.String()); s != "71 0 40000 4321 0" {
				t.Errorf("%s: %q, %v", l.Name, s, err)
			}
		}
	}
	if n := controls.Load() - before; n != 4 { // two members of the ReusePort listener
		t.Errorf("Control was called %d times", n)
	}
	err := p.StartChild(t.Context(), "", coppice.ListenerSpec{
		Name: "late", Network: "tcp", Address: "127.0.0.1:0", Options: coppice.SocketOptions{SendBuffer: -1},
	})
	if err == nil || !strings.Contains(err.Error(), "SendBuffer") {
		t.Errorf("%v", err)
	}
}
