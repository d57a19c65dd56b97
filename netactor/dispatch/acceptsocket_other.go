//go:build !linux

package dispatch

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor/internal/balance"
	"github.com/coppice-go/coppice/netactor/internal/inspect"
)

// acceptSocket is a listening socket to accept on. Off Linux it is a net.Listener, for workers that
// are goroutines.
type acceptSocket struct {
	ln             net.Listener
	draining       atomic.Bool
	askCredentials bool
}

// newAcceptSocket claims a listening socket. It consumes the handle, also on an error.
func newAcceptSocket(h *fdipc.Handle) (*acceptSocket, error) {
	ln, err := h.Listener()
	if err != nil {
		return nil, err
	}
	return &acceptSocket{ln: ln}, nil
}

// accept waits until there is a connection and accepts it. Errors: errNoRoom; errDrained after
// interrupt; else the error of Accept.
func (s *acceptSocket) accept(room func() int, into []acceptedConn) (n int, err error) {
	if room() == 0 {
		return 0, errNoRoom
	}
	c, err := s.ln.Accept()
	if err != nil {
		if s.draining.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
			err = errDrained
		}
		return 0, err
	}
	into[0] = acceptedConn{fd: -1}
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		into[0].peer = a.AddrPort()
	}
	if into[0].h, err = fdipc.HandleOf(c); err != nil {
		_ = c.Close()
		return 0, err
	}
	return 1, nil
}

// interrupt makes the accept that waits, and all later ones, return.
func (s *acceptSocket) interrupt() {
	s.draining.Store(true)
	if d, ok := s.ln.(interface{ SetDeadline(time.Time) error }); ok {
		_ = d.SetDeadline(time.Unix(1, 0))
	}
}

func (s *acceptSocket) setForeign() {}

func (s *acceptSocket) listening() bool { return false }

func (s *acceptSocket) backlog() int { return 0 }

func (s *acceptSocket) close() { _ = s.ln.Close() }

func ofConnection(err error) bool { return errors.Is(err, syscall.ECONNABORTED) }

func broken(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EINVAL)
}

func clientReset(p *balance.PendingConn) bool { return false }

// turnAway answers a connection and closes it.
func (a *acceptedConn) turnAway(answer string, _ *lingerQueue) {
	if c, err := a.h.Conn(); err == nil {
		_ = c.SetDeadline(time.Now().Add(lingerFor))
		_, _ = io.WriteString(c, answer)
		_ = c.Close()
	}
}

func resetOnClose(int) {}

func shutDown(int) {}

// finish closes a connection that was answered.
func (lingeringConn) finish() {}

func (s *acceptSocket) setHooks(inspect.DispatcherHooks) {}

func askAccepted(*fdipc.Handle, int, string) (peer, local netip.AddrPort) { return }
