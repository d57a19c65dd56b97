package listen

import (
	"net"
	"sync/atomic"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/tracing"
)

// connRecord is what a worker records of a connection that it accepted.
type connRecord struct {
	conns    *openConns
	reporter *reporter // nil if no dispatcher counts the connection
	span     tracing.Span
	parked   bool   // it was parked before: other processes may have copies
	served   func() // ends Config.Serving; nil = it is not noted

	credentials *fdipc.Credentials // of the client, if this worker asked for them when it accepted
}

// beforeClose counts the end of the connection for the listener process. It is called once, before
// the close: otherwise, if the worker were killed in between, the connection would count as lost.
func (r *connRecord) beforeClose() {
	if r.served != nil {
		r.served()
	}
	if r.reporter != nil {
		r.reporter.closed()
	}
}

// afterClose counts the end of the connection in this worker. It is called once, after the close.
func (r *connRecord) afterClose() {
	r.span.End()
	r.conns.done(r)
}

// TraceSpan returns the serve span of the connection; see [tracing.ConnContext].
func (r *connRecord) TraceSpan() tracing.Span { return r.span }

// wrap returns c in a wrapper that counts its end. The wrapper embeds the concrete type, so that it
// keeps the methods that other packages look for (ReadFrom, CloseWrite, SyscallConn); NetConn
// returns c. from is the listener if the listener process hands its connections over, or nil.
func wrap(c net.Conn, r connRecord, from *queuedListener) net.Conn {
	w := wrapper(c, r)
	if p, ok := w.(interface{ from(*queuedListener) }); ok && from != nil {
		p.from(from)
	}
	r.conns.add(w, w.record())
	return w
}

func wrapper(c net.Conn, r connRecord) countedConn {
	if w := wrapSocket(c, r); w != nil {
		return w
	}
	switch c := c.(type) {
	case *net.TCPConn:
		return &tcpConn{TCPConn: c, connRecord: r}
	case *net.UnixConn:
		return &unixConn{UnixConn: c, connRecord: r}
	}
	return &otherConn{Conn: c, connRecord: r}
}

// countedConn is a connection that wrap returns.
type countedConn interface {
	net.Conn
	record() *connRecord
}

func (r *connRecord) record() *connRecord { return r }

type tcpConn struct {
	*net.TCPConn
	connRecord
	once closeOnce
}

// Close closes the connection and counts its end.
func (c *tcpConn) Close() error { return c.once.close(c.TCPConn, &c.connRecord) }

// NetConn returns the connection without the counting.
func (c *tcpConn) NetConn() net.Conn { return c.TCPConn }

type unixConn struct {
	*net.UnixConn
	connRecord
	once closeOnce
}

// Close closes the connection and counts its end.
func (c *unixConn) Close() error { return c.once.close(c.UnixConn, &c.connRecord) }

// PeerCredentials returns the client's credentials, as of the accept; false if they were not asked
// for.
func (c *unixConn) PeerCredentials() (fdipc.Credentials, bool) {
	if c.credentials == nil {
		return fdipc.Credentials{}, false
	}
	return *c.credentials, true
}

// NetConn returns the connection without the counting.
func (c *unixConn) NetConn() net.Conn { return c.UnixConn }

type otherConn struct {
	net.Conn
	connRecord
	once closeOnce
}

// Close closes the connection and counts its end.
func (c *otherConn) Close() error { return c.once.close(c.Conn, &c.connRecord) }

// NetConn returns the connection without the counting.
func (c *otherConn) NetConn() net.Conn { return c.Conn }

// closeOnce counts the first Close only, and calls the connection's Close each time.
type closeOnce struct{ closed atomic.Bool }

func (o *closeOnce) close(c net.Conn, r *connRecord) error {
	first := !o.closed.Swap(true)
	if first {
		r.beforeClose()
	}
	err := c.Close()
	if first {
		r.afterClose()
	}
	return err
}

var (
	_ tracing.TracedConn = (*tcpConn)(nil)
	_ tracing.TracedConn = (*unixConn)(nil)
	_ tracing.TracedConn = (*otherConn)(nil)
)
