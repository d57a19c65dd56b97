package socket

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor"
)

// option is one socket option. field is the field of SocketOptions that asks for it; empty for a
// default, whose failure does not fail the listen.
type option struct {
	field           string
	level, name, to int
}

// ofTCP reports whether only TCP sockets have the option.
func (o option) ofTCP() bool { return o.level == unix.IPPROTO_TCP || o.name == unix.SO_KEEPALIVE }

// optionsOf returns the options to set on a socket, in order. They are set on the listening socket
// and cost nothing per connection: the connections inherit them.
func optionsOf(o netactor.SocketOptions, family int) (out []option) {
	add := func(asked bool, field string, level, name, to int) {
		if !asked {
			field = ""
		}
		out = append(out, option{field, level, name, to})
	}
	add(o.Delay, "Delay", unix.IPPROTO_TCP, unix.TCP_NODELAY, one(!o.Delay))
	add(o.KeepAliveIdle < 0, "KeepAliveIdle", unix.SOL_SOCKET, unix.SO_KEEPALIVE, one(o.KeepAliveIdle >= 0))
	if o.KeepAliveIdle >= 0 {
		count := o.KeepAliveCount
		if count == 0 {
			count = defaultKeepAliveCount
		}
		add(o.KeepAliveIdle > 0, "KeepAliveIdle", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(o.KeepAliveIdle, defaultKeepAlive))
		add(o.KeepAliveInterval > 0, "KeepAliveInterval", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds(o.KeepAliveInterval, defaultKeepAlive))
		add(o.KeepAliveCount > 0, "KeepAliveCount", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, count)
	}
	for _, opt := range fieldsOf(o, family) {
		if opt.to != 0 {
			out = append(out, opt)
		}
	}
	return out
}

// fieldsOf returns the options that stay the kernel's unless a field of o asks for another value.
func fieldsOf(o netactor.SocketOptions, family int) []option {
	level, free, transparent := unix.IPPROTO_IP, unix.IP_FREEBIND, unix.IP_TRANSPARENT
	if family == unix.AF_INET6 {
		level, free, transparent = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, unix.IPV6_TRANSPARENT
	}
	return []option{
		{"ReceiveBuffer", unix.SOL_SOCKET, unix.SO_RCVBUF, o.ReceiveBuffer},
		{"SendBuffer", unix.SOL_SOCKET, unix.SO_SNDBUF, o.SendBuffer},
		{"DeferAccept", unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, seconds(o.DeferAccept, 0)},
		{"FastOpen", unix.IPPROTO_TCP, unix.TCP_FASTOPEN, o.FastOpen},
		{"FreeBind", level, free, one(o.FreeBind)},
		{"Transparent", level, transparent, one(o.Transparent)},
	}
}

// one returns 1 for true and 0 for false.
func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// apply sets the options of r, and then calls the user's function.
func (s *Bound) apply(r SocketSpec) error {
	family, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	typ, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	for _, o := range optionsOf(r.Options, family) {
		err := error(unix.EOPNOTSUPP)
		if family != unix.AF_UNIX && (typ == unix.SOCK_STREAM || !o.ofTCP()) {
			err = unix.SetsockoptInt(s.fd, o.level, o.name, o.to)
		}
		if err != nil && o.field != "" {
			return os.NewSyscallError("setsockopt Options."+o.field, err)
		}
	}
	if r.Control == nil {
		return nil
	}
	network := r.Network
	if network == "" {
		network, _, _ = s.Address()
	}
	return controlled(r.Control, network, r.Address, s.fd)
}

// controlled calls the user's function. The text of the function's error goes into the name of the
// system call, because that is the only text that such an error carries to the worker.
func controlled(f netactor.ControlFunc, network, address string, fd int) (err error) {
	const call = "Functions.Control"
	defer func() {
		if p := recover(); p != nil {
			err = os.NewSyscallError(fmt.Sprintf("%s: panic: %v", call, p), unix.EINVAL)
		}
	}()
	err = f(network, address, bareConn(fd))
	errno, is := errors.AsType[syscall.Errno](err)
	switch {
	case err == nil:
		return nil
	case is:
		return os.NewSyscallError(call, errno)
	}
	return os.NewSyscallError(call+": "+err.Error(), unix.EINVAL)
}

// bareConn makes a syscall.RawConn of a descriptor, as net.ListenConfig's Control gets it.
type bareConn int

func (c bareConn) Control(f func(fd uintptr)) error { f(uintptr(c)); return nil }
func (bareConn) Read(func(fd uintptr) bool) error   { return errors.ErrUnsupported }
func (bareConn) Write(func(fd uintptr) bool) error  { return errors.ErrUnsupported }

const (
	defaultKeepAlive      = 15 * time.Second
	defaultKeepAliveCount = 9
)

// seconds rounds up; 0 is the default.
func seconds(d, byDefault time.Duration) int {
	if d == 0 {
		d = byDefault
	}
	return int((d + time.Second - 1) / time.Second)
}
