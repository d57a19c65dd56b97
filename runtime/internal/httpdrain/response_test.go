package httpdrain_test

import (
	"bufio"
	"compress/gzip"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/httpdrain"
)

// drained returns the URL of a server of h whose drain has begun.
func drained(t *testing.T, h http.Handler, http2 bool) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	d := httpdrain.New(s.Config, nil, nil, func(int, bool) {}, func(int) {}, unguarded{})
	d.Begin(false)
	if s.EnableHTTP2 = http2; http2 {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

type gzipWriter struct {
	http.ResponseWriter
	z *gzip.Writer
}

func (w gzipWriter) Write(p []byte) (int, error) { return w.z.Write(p) }

// Whatever stands between the handler and the server, and however the handler answers, the answers
// of a draining server ask the client for another connection.
func TestAnswersOfDrainClose(t *testing.T) {
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	hints := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>")
		w.WriteHeader(http.StatusEarlyHints)
		_, _ = io.WriteString(w, "hello")
	})
	behind := func(h http.Handler) http.Handler {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		u, err := url.Parse(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		return httputil.NewSingleHostReverseProxy(u)
	}
	rows := map[string]http.Handler{
		"Write":       hello,
		"103":         hints,
		"proxy":       behind(hello),
		"proxy, 103":  behind(hints),
		"timeout":     http.TimeoutHandler(hello, time.Minute, ""),
		"nothing":     http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		"WriteHeader": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }),
		"emptied": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			clear(w.Header())
			w.WriteHeader(http.StatusOK)
		}),
		"gzip": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			defer z.Close()
			hello(gzipWriter{w, z}, r)
		}),
		"ReadFrom": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.(io.ReaderFrom).ReadFrom(strings.NewReader("hello"))
		}),
		"WriteString": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.(io.StringWriter).WriteString("hello")
		}),
		"Flush": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "hello")
		}),
		"ResponseController": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			rc := http.NewResponseController(w)
			if err := rc.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Error(err)
			}
			if err := rc.Flush(); err != nil {
				t.Error(err)
			}
		}),
		"ServeContent": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "a.txt", time.Time{}, strings.NewReader("hello"))
		}),
	}
	for name, h := range rows {
		t.Run(name, func(t *testing.T) {
			s := drained(t, h, false)
			resp, err := s.Client().Get(s.URL)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if !resp.Close {
				t.Errorf("%v keeps the connection: %v", resp.Status, resp.Header)
			}
		})
	}
}

// A handler that takes the connection, or sets a Connection header, has its way.
func TestDrainLeavesUpgrades(t *testing.T) {
	rows := map[string]http.HandlerFunc{
		"hijacked": func(w http.ResponseWriter, _ *http.Request) {
			c, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			_ = rw.Flush()
		},
		"set": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "echo")
			w.WriteHeader(http.StatusSwitchingProtocols)
		},
	}
	for name, h := range rows {
		t.Run(name, func(t *testing.T) {
			s := drained(t, h, false)
			c, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Connection") != "Upgrade" {
				t.Errorf("%v %v", resp.Status, resp.Header)
			}
		})
	}
}

// The writers of HTTP/2 keep their optional methods.
func TestAnswersOfDrainHTTP2(t *testing.T) {
	var missing []string
	s := drained(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, ok := w.(http.Pusher); !ok {
			missing = append(missing, "Push")
		}
		if _, ok := w.(http.Flusher); !ok {
			missing = append(missing, "Flush")
		}
		_, _ = io.WriteString(w, "hello")
	}), true)
	resp, err := s.Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.ProtoMajor != 2 || string(b) != "hello" || missing != nil {
		t.Errorf("%v %q without %v", resp.Proto, b, missing)
	}
}

// unguarded refuses no request.
type unguarded struct{}

func (unguarded) Begin(*http.Request, *httpdrain.Timed) (int, string) { return 0, "" }

func (unguarded) Extend(int, int64, time.Duration) bool { return false }
func (unguarded) End(int)                               {}
