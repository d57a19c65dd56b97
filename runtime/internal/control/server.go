package control

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Bounds of what clients may cost. A client that needs more than one of them is not an operator.
const (
	maxConns    = 64
	maxBody     = 64 << 10 // bytes of a request
	readTimeout = 10 * time.Second
	idleTimeout = time.Minute

	// writeTimeout is how long a client may leave a piece of an answer unread.
	writeTimeout = 15 * time.Second
)

// Config is what a Server needs.
type Config struct {
	Handler http.Handler
	Logger  *slog.Logger
	Tree    func() []int // the PIDs of the processes of the tree
}

// A Server answers the clients of one socket.
type Server struct {
	cfg  Config
	http *http.Server

	mu      sync.Mutex
	refused uint64 // peers
}

// NewServer returns a server.
func NewServer(cfg Config) *Server {
	s := &Server{cfg: cfg}
	s.http = &http.Server{
		Handler: s, ConnContext: s.withPeer, ErrorLog: log.New(io.Discard, "", 0), // of clients, of which none is the tree's concern
		ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 16 << 10,
	}
	return s
}

// Serve answers the clients of ln until Close.
func (s *Server) Serve(ln *net.UnixListener) {
	_ = s.http.Serve(&peerListener{UnixListener: ln, server: s, slots: make(chan struct{}, maxConns)}) // always returns an error
}

// Close ends all connections.
func (s *Server) Close() { _ = s.http.Close() }

// ServeHTTP bounds the request, and what a client that does not read can hold up, which is its own
// connection.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		Error(w, http.StatusBadRequest, errors.New("control: "+err.Error()))
		return
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		Error(w, http.StatusRequestEntityTooLarge, errors.New("control: "+err.Error()))
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // all is read; the answer may take longer
	s.cfg.Handler.ServeHTTP(&patientWriter{w, http.NewResponseController(w)}, r)
}

// patientWriter gives the client writeTimeout for each piece of the answer.
type patientWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (w *patientWriter) Write(b []byte) (int, error) {
	_ = w.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *patientWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type peerKey struct{}

// PeerOf returns the process that a request on a Server's socket comes from.
func PeerOf(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}

func (s *Server) withPeer(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*peerConn); ok {
		return context.WithValue(ctx, peerKey{}, c.peer)
	}
	return ctx
}

// peerListener accepts the connections of peers that may use the endpoint, at most as many as slots
// has room for. Others are answered and closed, without a goroutine and without reading from them.
type peerListener struct {
	*net.UnixListener
	server *Server
	slots  chan struct{}
}

func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err // net/http waits and comes again where that helps
		}
		peer, err := checkPeer(c, l.server.cfg.Tree)
		if err != nil {
			l.server.refuse(peer, err)
			turnAway(c, http.StatusForbidden, err)
			continue
		}
		select {
		case l.slots <- struct{}{}:
			return &peerConn{c, peer, sync.OnceFunc(func() { <-l.slots })}, nil
		default:
			turnAway(c, http.StatusServiceUnavailable, errors.New("control: too many connections"))
		}
	}
}

type peerConn struct {
	*net.UnixConn
	peer Peer
	free func()
}

func (c *peerConn) Close() error {
	defer c.free()
	return c.UnixConn.Close()
}

// refuse logs the first refused peer, the second, the fourth, and so on.
func (s *Server) refuse(p Peer, err error) {
	s.mu.Lock()
	s.refused++
	n := s.refused
	s.mu.Unlock()
	if n&(n-1) == 0 {
		s.cfg.Logger.Warn("a client of the control endpoint is refused", "pid", p.PID, "uid", p.UID, "times", n, "err", err)
	}
}

// turnAway answers without having read the request, and does not wait: the answer fits into the
// buffer of the new socket.
func turnAway(c *net.UnixConn, status int, err error) {
	body := ErrorBody(status, err)
	var b strings.Builder
	_ = (&http.Response{
		StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Close: true, ContentLength: int64(len(body)),
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(string(body))),
	}).Write(&b) // of a strings.Builder
	_ = c.SetWriteDeadline(time.Now())
	_, _ = c.Write([]byte(b.String()))
	c.Close()
}
