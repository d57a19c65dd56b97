package httpdrain

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// response sets "Connection: close" when the header is written, and not before: handlers such as
// httputil.ReverseProxy empty the header after each 1xx that they forward. It leaves a Connection
// that the handler has set, as for an upgrade.
type response struct {
	http.ResponseWriter
	written bool
}

// closing returns rw as a response with the optional methods of net/http's own writers, for the
// handlers that assert them. It finds the others by Unwrap.
func closing(rw http.ResponseWriter) (http.ResponseWriter, *response) {
	r := &response{ResponseWriter: rw}
	f, flushes := rw.(flusher)
	switch of := rw.(type) {
	case http1:
		return http1Response{r, flushing{r, f}, of}, r
	case http.Pusher: // on HTTP/2, net/http sends GOAWAY for the header
		if flushes {
			return http2Response{r, flushing{r, f}, of}, r
		}
	}
	return r, r
}

// Unwrap is for http.ResponseController.
func (r *response) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// mark sets the header, unless it is written.
func (r *response) mark() {
	if r.written {
		return
	}
	r.written = true
	if h := r.Header(); h.Get("Connection") == "" {
		h.Set("Connection", "close")
	}
}

func (r *response) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		r.mark()
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *response) Write(p []byte) (int, error) {
	r.mark()
	return r.ResponseWriter.Write(p)
}

func (r *response) WriteString(s string) (int, error) {
	r.mark()
	return io.WriteString(r.ResponseWriter, s)
}

// flusher is what both of net/http's writers do.
type flusher interface {
	http.Flusher
	http.CloseNotifier //nolint:staticcheck // old handlers assert it
	FlushError() error
}

type flushing struct {
	of *response
	to flusher
}

func (f flushing) CloseNotify() <-chan bool { return f.to.CloseNotify() }

func (f flushing) Flush() { _ = f.FlushError() } // Flush has no result

func (f flushing) FlushError() error {
	f.of.mark()
	return f.to.FlushError()
}

// http1 is what net/http's writer for HTTP/1 does beyond flushing.
type http1 interface {
	flusher
	http.Hijacker
	io.ReaderFrom
}

type http1Response struct {
	*response
	flushing
	to http1
}

func (r http1Response) Hijack() (net.Conn, *bufio.ReadWriter, error) { return r.to.Hijack() }

// ReadFrom lets a file go to the socket without a copy.
func (r http1Response) ReadFrom(src io.Reader) (int64, error) {
	r.mark()
	return r.to.ReadFrom(src)
}

type http2Response struct {
	*response
	flushing
	to http.Pusher
}

func (r http2Response) Push(target string, opts *http.PushOptions) error {
	return r.to.Push(target, opts)
}
