package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// server is HTTP/3 on a socket.
type server struct {
	transport *quic.Transport
	listener  *quic.EarlyListener
	h3        *http3.Server
}

// newServer borrows conn until the server is closed or shut down.
//
// reset is the same for every worker. The replacement of a worker that was killed answers
// the datagrams of connections that it does not know by a stateless reset, which their
// clients then believe: they connect anew at once, and not after their idle timeout.
func newServer(conn net.PacketConn, conf *tls.Config, reset quic.StatelessResetKey, h http.Handler) (*server, error) {
	tr := &quic.Transport{Conn: conn, StatelessResetKey: &reset}
	ln, err := tr.ListenEarly(http3.ConfigureTLSConfig(conf), &quic.Config{})
	if err != nil {
		return nil, err
	}
	return &server{tr, ln, &http3.Server{Handler: h}}, nil
}

// serve serves until close or shutdown.
func (s *server) serve() error {
	err := s.h3.ServeListener(s.listener)
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, quic.ErrServerClosed) {
		return nil
	}
	return err
}

// shutdown refuses new connections, sends GOAWAY on the others, and waits until their
// clients have closed them, which they do after the last request. At the end of ctx they
// are closed.
func (s *server) shutdown(ctx context.Context) error {
	err := s.listener.Close()
	return errors.Join(err, s.h3.Shutdown(ctx), s.transport.Close())
}

func (s *server) close() error {
	return errors.Join(s.listener.Close(), s.h3.Close(), s.transport.Close())
}
