package fdipc_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

// dupHandle makes a handle of a fresh duplicate of c, and closes c.
func dupHandle(t testing.TB, c net.Conn) *fdipc.Handle {
	t.Helper()
	f, err := c.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	rc, _ := f.SyscallConn()
	fd := -1
	_ = rc.Control(func(old uintptr) {
		fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
		_ = unix.SetNonblock(fd, true)
	})
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	return fdipc.HandleFD(fd)
}

// passer hands connections over a Conn between two sockets and gives what Accept would.
type passer struct {
	t   testing.TB
	a   *fdipc.Conn
	out chan net.Conn
}

func newPasser(t *testing.T) *passer {
	p := &passer{t: t, out: make(chan net.Conn, 16)}
	p.a, _ = pair(t, fdipc.Config{Handler: ignore}, fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) {
		c, err := f.Handles[0].Conn()
		if err != nil {
			t.Error(err)
			return
		}
		p.out <- c
	}})
	return p
}

func (p *passer) pass(h *fdipc.Handle) net.Conn {
	if err := p.a.Send(context.Background(), &fdipc.Frame{Kind: 0x40, Handles: []*fdipc.Handle{h}}); err != nil {
		p.t.Fatal(err)
	}
	return <-p.out
}

// TestSocketNettest: a Socket is a net.Conn by the rules of package nettest, as it is handed over and
// once it has become package net's.
func TestSocketNettest(t *testing.T) {
	rows := []struct {
		name    string
		network string
		nets    bool
	}{{"tcp", "tcp", false}, {"unix", "unix", false}, {"tcp, package net's", "tcp", true}, {"unix, package net's", "unix", true}}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			p := newPasser(t)
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				ln, err := nettest.NewLocalListener(row.network)
				if err != nil {
					return nil, nil, nil, err
				}
				defer ln.Close()
				client, err := net.Dial(row.network, ln.Addr().String())
				if err != nil {
					return nil, nil, nil, err
				}
				server, err := ln.Accept()
				if err != nil {
					return nil, nil, nil, err
				}
				c1, c2 = p.pass(dupHandle(t, client)), p.pass(dupHandle(t, server))
				for _, c := range []net.Conn{c1, c2} {
					if row.nets {
						_, err = c.(syscall.Conn).SyscallConn()
					}
				}
				return c1, c2, func() { c1.Close(); c2.Close() }, err
			})
		})
	}
}

// passListener accepts connections as Sockets.
type passListener struct {
	net.Listener
	p *passer
}

func (l passListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	h, err := fdipc.HandleOf(c)
	if err != nil {
		return nil, err
	}
	return l.p.pass(h), nil
}

func TestSocketHTTP(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			big := strings.Repeat("0123456789abcdef", 1<<16)
			srv := &http.Server{
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					n, err := io.Copy(io.Discard, r.Body)
					if err != nil {
						t.Error(err)
					}
					fmt.Fprintf(w, "%s %d ", r.RemoteAddr[:9], n)
					_, _ = io.WriteString(w, big)
				}),
				ReadTimeout: time.Minute, WriteTimeout: time.Minute, IdleTimeout: time.Minute,
			}
			l, scheme := net.Listener(passListener{ln, newPasser(t)}), "http"
			client := &http.Client{Transport: &http.Transport{}}
			if secure {
				cert, pool := selfSigned(t)
				l, scheme = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}}), "https"
				client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
			}
			done := make(chan error, 1)
			go func() { done <- srv.Serve(l) }()
			for range 20 {
				resp, err := client.Post(scheme+"://"+ln.Addr().String(), "text/plain", strings.NewReader(big))
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if want := fmt.Sprintf("127.0.0.1 %d ", len(big)) + big; err != nil || string(b) != want {
					t.Fatalf("%d bytes, %v", len(b), err)
				}
			}
			client.CloseIdleConnections()
			if err := srv.Shutdown(context.Background()); err != nil {
				t.Fatal(err)
			}
			if err := wait(t, "end of Serve", done); err != http.ErrServerClosed {
				t.Fatal(err)
			}
		})
	}
}

func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestSocketErrors(t *testing.T) {
	p := newPasser(t)
	client, server := tcpPair(t)
	defer client.Close()
	c := p.pass(dupHandle(t, server)).(*fdipc.Socket)

	opError := func(what string, err, want error, timeout bool) {
		t.Helper()
		var oe *net.OpError
		if !errors.As(err, &oe) || !errors.Is(err, want) || oe.Timeout() != timeout {
			t.Errorf("%s: %#v (%v), want %v", what, err, err, want)
		}
	}
	// A deadline set before the poller is involved holds at once, and in a call that waits.
	b := make([]byte, 1)
	_ = c.SetReadDeadline(time.Unix(1, 0))
	_, err := c.Read(b)
	opError("read past the deadline", err, os.ErrDeadlineExceeded, true)
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err = c.Read(b)
	opError("read up to the deadline", err, os.ErrDeadlineExceeded, true)
	_ = c.SetDeadline(time.Time{})

	if a, ok := c.RemoteAddr().(*net.TCPAddr); !ok || a.String() != client.LocalAddr().String() {
		t.Errorf("remote address %v, want %v", c.RemoteAddr(), client.LocalAddr())
	}
	if a, ok := c.LocalAddr().(*net.TCPAddr); !ok || a.String() != client.RemoteAddr().String() {
		t.Errorf("local address %v, want %v", c.LocalAddr(), client.RemoteAddr())
	}
	if err := c.CloseWrite(); err != nil {
		t.Error(err)
	}
	if _, err := client.Read(b); err != io.EOF {
		t.Errorf("client reads %v after CloseWrite", err)
	}
	_, err = c.Write(b)
	opError("write after CloseWrite", err, syscall.EPIPE, false)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	_, err = c.Read(b)
	opError("read after close", err, net.ErrClosed, false)
	_, err = c.Write(b)
	opError("write after close", err, net.ErrClosed, false)
	opError("second close", c.Close(), net.ErrClosed, false)
	opError("deadline after close", c.SetDeadline(time.Time{}), net.ErrClosed, false)
	if got := c.RemoteAddr().String(); got != client.LocalAddr().String() {
		t.Errorf("remote address after close: %s", got)
	}
}
