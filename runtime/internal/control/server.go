package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of what clients may cost. A client that needs more than one of them is not an operator.
const (
	maxConns    = 64
	acceptRate  = 100 // connections a second, beyond acceptBurst
	acceptBurst = 200
	maxTold     = 8        // clients that are being told why they are not served
	maxBody     = 64 << 10 // bytes of a request
	readTimeout = 10 * time.Second
	idleTimeout = time.Minute
	tellTimeout = 2 * time.Second

	// writeTimeout is how long a client may leave a piece of an answer unread.
	writeTimeout = 15 * time.Second
)

// A SocketServer answers the clients of one socket.
type SocketServer struct {
	log     *slog.Logger
	tree    func() []int // the PIDs of the processes of the tree
	http    *http.Server
	refused atomic.Uint64 // peers
}

// NewServer returns a server. tree returns the PIDs of the processes of the tree.
func NewServer(handler http.Handler, logger *slog.Logger, tree func() []int) *SocketServer {
	s := &SocketServer{log: logger, tree: tree}
	s.http = &http.Server{
		Handler: Bounded(handler), ConnContext: withPeer, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug), // about clients
		ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 16 << 10,
	}
	return s
}

// Serve answers the clients of ln until Close.
func (s *SocketServer) Serve(ln *Socket) {
	err := s.http.Serve(&peerListener{Socket: ln, server: s, slots: make(chan struct{}, maxConns), told: make(chan struct{}, maxTold)})
	if !errors.Is(err, http.ErrServerClosed) {
		s.log.Warn("the control endpoint has ended", "err", err)
	}
}

// Close closes the socket, and ends all connections.
func (s *SocketServer) Close() { _ = s.http.Close() }

// Bounded bounds what a client may cost: the length of its request, and what it can hold up by not
// reading, which is its own connection. The handler finds the request read, and its form parsed.
func Bounded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		err := r.ParseForm()
		if err == nil {
			_, err = io.Copy(io.Discard, r.Body)
		}
		if err != nil {
			status := http.StatusBadRequest
			if _, long := errors.AsType[*http.MaxBytesError](err); long {
				status = http.StatusRequestEntityTooLarge
			}
			Error(w, status, fmt.Errorf("control: %w", err))
			return
		}
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Time{}) // all is read; the answer may take longer
		h.ServeHTTP(&patientWriter{w, control}, r)
	})
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

// PeerOf returns the process that a request on the socket comes from.
func PeerOf(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}

func withPeer(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*peerConn); ok {
		return context.WithValue(ctx, peerKey{}, c.peer)
	}
	return ctx
}

// peerListener accepts the connections of peers that may use the endpoint, at most as many as slots
// has room for. Others are closed.
type peerListener struct {
	*Socket
	server      *SocketServer
	slots, told chan struct{}

	earliest time.Time // of the connection after the burst that is allowed
}

// pace waits if connections come at a higher rate than acceptRate: each costs a look at the peer.
func (l *peerListener) pace() {
	const between = time.Second / acceptRate
	now := time.Now()
	if l.earliest.Before(now.Add(-acceptBurst * between)) {
		l.earliest = now.Add(-acceptBurst * between)
	}
	l.earliest = l.earliest.Add(between)
	time.Sleep(l.earliest.Sub(now))
}

func (l *peerListener) Accept() (net.Conn, error) {
	for {
		l.pace()
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err // net/http waits and comes again where that helps
		}
		select {
		case l.slots <- struct{}{}:
		default: // before the look at the peer, which costs the most
			l.turnAway(c, http.StatusServiceUnavailable, errors.New("control: too many connections"))
			continue
		}
		peer, err := checkPeer(c, l.server.tree)
		if err == nil {
			return &peerConn{c, peer, sync.OnceFunc(func() { <-l.slots })}, nil
		}
		<-l.slots
		l.server.refuse(peer, err)
		l.turnAway(c, http.StatusForbidden, err)
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
func (s *SocketServer) refuse(p Peer, err error) {
	if n := s.refused.Add(1); n&(n-1) == 0 {
		s.log.Warn("a client of the control endpoint is refused", "pid", p.PID, "uid", p.UID, "times", n, "err", err)
	}
}

// turnAway closes a connection. Its client learns why if it has sent its request by then, and if
// not too many others are being told the same.
func (l *peerListener) turnAway(c *net.UnixConn, status int, err error) {
	select {
	case l.told <- struct{}{}:
	default:
		c.Close()
		return
	}
	go func() { // ends within tellTimeout
		defer func() { <-l.told }()
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(tellTimeout))
		if _, err := c.Read(make([]byte, 16<<10)); err != nil { // clients take no answer before they have asked
			return
		}
		body := ErrorBody(status, err)
		_ = (&http.Response{
			StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Close: true, ContentLength: int64(len(body)),
			Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)),
		}).Write(c) // on an error the client is gone
	}()
}
