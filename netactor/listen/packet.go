package listen

import (
	"context"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/address"
)

// UDPConn is the worker's part of a UDP socket. It is a *net.UDPConn in all but Close, so that code
// that looks for its methods finds them: ReadMsgUDP, WriteMsgUDP, SyscallConn, SetReadBuffer. Give
// the field to code that needs the concrete type.
//
// The socket is shared with other processes, and so is all state that belongs to the socket and not
// to the descriptor:
//
//   - Its options. A buffer size or a TTL applies to all processes.
//   - Its groups. Membership outlives the worker that joined; to join again returns EADDRINUSE,
//     which means that the socket is a member. A datagram to the group goes to one worker. With
//     [netactor.ReusePort] each socket must join once, and each gets a copy. Without
//     IP_MULTICAST_ALL = 0 a socket also gets the datagrams of groups that any other socket of the
//     machine joined (ip(7)).
//   - O_NONBLOCK. A process that clears it, for instance by File and then Fd, makes reads block in
//     all processes, past their deadlines. SyscallConn does not clear it.
//   - Its peer. A process that connects it (SyscallConn and connect(2)) connects it for all. To
//     connect to one peer use a separate socket. net.Dial makes it at another port. At the same
//     port it needs ReusePort: SO_REUSEPORT, bind and connect make a socket that gets all datagrams
//     of that peer, and between bind and connect some of other peers.
//   - Its end. A process that shuts it down (shutdown(2)) does so for all: the master notices and
//     opens another, and reads of this one return net.ErrClosed. A worker that asks again gets the
//     new one. The kernel reports no shutdown of the sending half alone (SHUT_WR): writes return
//     EPIPE in all processes until the socket is closed.
//   - The order: each datagram goes to one reader, the first.
//
// Each process has separate deadlines. With [netactor.ReusePort] only the workers of one slot share
// a socket: two during a reload, else one.
//
// Close closes this process's copy. The socket and its queued datagrams live as long as the
// listener.
type UDPConn struct {
	*net.UDPConn
	socket *packetSocket
}

// Close closes this worker's copy of the socket. Reads that wait return an error that is
// net.ErrClosed, and so does a second Close.
func (c *UDPConn) Close() error { return c.socket.Close() }

// UnixgramConn is the worker's part of a Unix datagram socket. It is a *net.UnixConn in all but
// Close and LocalAddr; what [UDPConn] says of sharing holds for it.
type UnixgramConn struct {
	*net.UnixConn
	socket *packetSocket
}

// Close closes this worker's copy of the socket. Reads that wait return an error that is
// net.ErrClosed, and so does a second Close. The path is removed when the socket has no owner any
// more.
func (c *UnixgramConn) Close() error { return c.socket.Close() }

// LocalAddr returns the path of the request; the kernel has a shorter name for a long path.
func (c *UnixgramConn) LocalAddr() net.Addr { return c.socket.addr }

// packetSocket is a packet socket of this process.
type packetSocket struct {
	ls     *Listeners
	pc     net.PacketConn // a *net.UDPConn or *net.UnixConn
	addr   net.Addr
	number uint64 // 0 without a master
	done   func() // gives the ordinal back, or without a master removes the path; nil: neither
	closed atomic.Bool
}

// conn returns the user's part of s.
func (s *packetSocket) conn() net.PacketConn {
	switch pc := s.pc.(type) {
	case *net.UDPConn:
		return &UDPConn{pc, s}
	case *net.UnixConn:
		return &UnixgramConn{pc, s}
	}
	return s.pc // there is no other type
}

func (s *packetSocket) dispatched() bool { return false }

// Close closes this process's copy of the socket.
func (s *packetSocket) Close() error {
	closed, err := s.close(true)
	if !closed {
		return &net.OpError{Op: "close", Net: s.addr.Network(), Addr: s.addr, Err: net.ErrClosed}
	}
	return err
}

func (s *packetSocket) closedByMaster() { _, _ = s.close(false) }

// close closes s once. If tell is set, it reports the close to the master.
func (s *packetSocket) close(tell bool) (closed bool, err error) {
	if s.closed.Swap(true) {
		return false, nil
	}
	err = s.pc.Close()
	s.ls.forget(s, s.number)
	if s.number != 0 && tell {
		s.ls.reportClosed(s.number)
	}
	if s.done != nil {
		s.done()
	}
	return true, err
}

// ListenPacket is [Listeners.Listen] for packet sockets: it returns a *[UDPConn] or a
// *[UnixgramConn]. With [netactor.ReusePort] each slot has one socket, which outlives the worker,
// with the datagrams queued in it. With any other r.Policy all workers share one socket, and each
// datagram goes to one reader. Errors are those of net.ListenPacket. The caller, or
// [Listeners.Close], closes the conn.
func (ls *Listeners) ListenPacket(ctx context.Context, r netactor.Request) (net.PacketConn, error) {
	r.Packet = r.Network == ""
	var s openSocket
	var err error
	switch {
	case ls.cfg.Master == nil:
		s, err = ls.listenPacketAlone(ctx, r)
	case r.Network != "" && !address.IsPacket(r.Network):
		err = wrongKind(ctx, r)
	default:
		s, err = ls.ask(ctx, r, nil)
	}
	if err != nil {
		return nil, err
	}
	return s.(*packetSocket).conn(), nil
}

// listenPacketAlone is ListenPacket without a master.
func (ls *Listeners) listenPacketAlone(ctx context.Context, r netactor.Request) (openSocket, error) {
	if err := r.Validate(); err != nil {
		return nil, address.ListenError(r.Network, nil, err)
	}
	if r.Network == "" {
		return nil, address.ListenError(r.Network, nil, os.NewSyscallError("listen", syscall.ENOENT))
	}
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(ctx, r.Network, r.Address)
	if err != nil {
		return nil, err
	}
	s := &packetSocket{ls: ls, pc: pc, addr: pc.LocalAddr()}
	if address.IsLocal(r.Network) && !strings.HasPrefix(r.Address, "@") {
		s.done = func() { _ = os.Remove(r.Address) } // package net does not remove it; the master would
	}
	if !ls.keep(s) {
		return nil, address.ListenError(r.Network, s.addr, net.ErrClosed)
	}
	return s, nil
}
