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

// UDPConn is the worker's part of a UDP socket. It is a *net.UDPConn in all but Close, so that what looks for
// one by its methods finds it: ReadMsgUDP, WriteMsgUDP, SyscallConn, SetReadBuffer. What asks
// for the concrete type is given the field.
//
// The socket is shared with other processes, and what belongs to the socket, not to the descriptor, is so too:
//
//   - Its options. A buffer size, a TTL hold for all.
//   - Its groups. Membership outlives the worker that joined; to join again is EADDRINUSE, which says that it is done. A
//     datagram to the group goes to one worker. With [ReusePort] each socket has to be joined, once, and each gets
//     a copy. Without IP_MULTICAST_ALL = 0 a socket also gets what any other of the machine joined (ip(7)).
//   - O_NONBLOCK. Whoever clears it, by File and then Fd for instance, makes reads block in all processes, past
//     their deadlines. SyscallConn does not.
//   - Its peer. Whoever connects it (SyscallConn and connect(2)) connects it for all. For a peer of one's own there is a
//     socket of one's own: net.Dial from any port; from this one only with ReusePort, where SO_REUSEPORT, bind and connect
//     make a socket that gets all of that peer's datagrams, but between bind and connect others' too.
//   - Its end. Whoever shuts it down (shutdown(2)) does so for all: the master notices and opens another, and reads of
//     this one return net.ErrClosed. Who asks again gets the new one. Of the sending half alone (SHUT_WR) the kernel
//     tells nobody: writes are EPIPE in all processes until the socket is closed.
//   - The order: each datagram goes to one reader, whichever is first.
//
// Deadlines are each process's own. With [ReusePort] the others are the workers of one slot alone: two in a
// reload, else one.
//
// Close closes this process's copy. The socket, and what it has queued, live on as its listener does.
type UDPConn struct {
	*net.UDPConn
	socket *packetSocket
}

// Close closes this worker's copy of the socket. Reads that wait return an error that is net.ErrClosed, and
// so does a second Close.
func (c *UDPConn) Close() error { return c.socket.Close() }

// UnixgramConn is the worker's part of a Unix datagram socket. It is a *net.UnixConn in all but Close and
// LocalAddr; what [UDPConn] says of sharing holds for it.
type UnixgramConn struct {
	*net.UnixConn
	socket *packetSocket
}

// Close closes this worker's copy of the socket. Reads that wait return an error that is net.ErrClosed, and
// so does a second Close. The path is removed when nobody has the socket any more.
func (c *UnixgramConn) Close() error { return c.socket.Close() }

// LocalAddr returns the path that was asked for; the kernel knows a long one by a shorter name.
func (c *UnixgramConn) LocalAddr() net.Addr { return c.socket.addr }

// packetSocket is a packet socket of this process.
type packetSocket struct {
	ls     *Listeners
	pc     net.PacketConn // a *net.UDPConn or *net.UnixConn
	addr   net.Addr
	number uint64 // 0: there is no master
	done   func() // gives the ordinal back, or removes the path where there is no master; nil: neither
	closed atomic.Bool
}

// conn is what the user has of m.
func (s *packetSocket) conn() net.PacketConn {
	switch pc := s.pc.(type) {
	case *net.UDPConn:
		return &UDPConn{pc, s}
	case *net.UnixConn:
		return &UnixgramConn{pc, s}
	}
	return s.pc // there is no other
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

// close closes m once. tell says that the master is to hear of it.
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

// ListenPacket is [Listeners.Listen] for packet sockets: what comes back is a *[UDPConn] or a *[UnixgramConn].
// Whatever r.Policy, the one socket is shared, and each datagram goes to one of those who read; but with
// [ReusePort] each worker has a socket of its own, which is its slot's: it outlives the worker, with what is
// queued in it. Errors are those of net.ListenPacket. The conn is to be closed by the caller, or by
// [Listeners.Close].
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
		s.done = func() { _ = os.Remove(r.Address) } // package net leaves it, the master does not
	}
	ls.mu.Lock()
	closed := ls.closed
	if !closed {
		ls.unknownToMaster[s] = true
	}
	ls.mu.Unlock()
	if closed {
		s.closedByMaster()
		return nil, address.ListenError(r.Network, s.addr, net.ErrClosed)
	}
	return s, nil
}
