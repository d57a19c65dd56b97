package fdipc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Listener accepts Conns on a named socket. Whoever may connect to it is a stranger until the kernel
// has said who sent the first packet (SO_PASSCRED: SO_PEERCRED would name who made the
// socket, not who has it now).
type Listener struct {
	l         *net.UnixListener
	allow     func(Credentials) bool
	strangers atomic.Uint64
}

// Listen makes a named socket at path, which must not exist; Close removes it. allow says whom to talk to. Nil
// means processes of the own user, and root.
func Listen(path string, allow func(Credentials) bool) (*Listener, error) {
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("fdipc: %w", err)
	}
	rc, err := l.SyscallConn()
	if err == nil {
		cerr := rc.Control(func(fd uintptr) {
			err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1))
		})
		err = errors.Join(err, cerr)
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("fdipc: listen: %w", err)
	}
	if allow == nil {
		uid := os.Geteuid()
		allow = func(c Credentials) bool { return c.UID == uid || c.UID == 0 }
	}
	return &Listener{l: l, allow: allow}, nil
}

// Accept waits for the next connection and starts a Conn over it. A stranger's
// Conn ends with [ErrStranger] before its first frame, and counts.
func (l *Listener) Accept(cfg Config) (*Conn, error) {
	c, err := l.l.AcceptUnix()
	if err != nil {
		return nil, fmt.Errorf("fdipc: accept: %w", err)
	}
	f, err := takeFile(c)
	if err != nil {
		return nil, fmt.Errorf("fdipc: accept: %w", err)
	}
	return newOver(f, cfg, func(who Credentials) bool {
		ok := l.allow(who)
		if !ok {
			l.strangers.Add(1)
		}
		return ok
	})
}

// Strangers is the number of connections refused for their credentials.
func (l *Listener) Strangers() uint64 { return l.strangers.Load() }

// Addr is the path.
func (l *Listener) Addr() net.Addr { return l.l.Addr() }

// Close stops accepting and removes the path. Conns live on.
func (l *Listener) Close() error { return l.l.Close() }

// Dial connects to the named socket at path and starts a Conn over it.
func Dial(ctx context.Context, path string, cfg Config) (*Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixpacket", path)
	if err != nil {
		return nil, fmt.Errorf("fdipc: %w", err)
	}
	f, err := takeFile(c.(*net.UnixConn))
	if err != nil {
		return nil, fmt.Errorf("fdipc: dial: %w", err)
	}
	return newOver(f, cfg, nil)
}

// takeFile takes c apart. The file is non-blocking, and in the poller.
func takeFile(c *net.UnixConn) (*os.File, error) {
	defer c.Close()
	f, err := duplicate(c)
	if err != nil {
		return nil, err
	}
	if err := f.SetDeadline(time.Time{}); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
