//go:build linux

package coppice_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
)

func init() {
	trees["tls"] = func() coppice.Config {
		cfg := pool(4, serveTLS)
		cfg.Load = selfSigned // every worker has the same certificate
		return cfg
	}
	trees["tls, two pools"] = func() coppice.Config {
		cfg := pool(2, serveTLS)
		cfg.Children = append(cfg.Children, coppice.Pool{Name: "other", Size: 2, Worker: serveTLS})
		cfg.Load = selfSigned
		return cfg
	}
}

// serveTLS answers with its slot, at an address of its pool.
func serveTLS(ctx context.Context, w *coppice.Worker) error {
	cert, err := tls.X509KeyPair(w.Config(), w.Config())
	if err != nil {
		return err
	}
	host := "127.0.0.1"
	pool, _, _ := strings.Cut(w.Name(), "/")
	if pool == "other" {
		host = "127.0.0.2"
	}
	ln, err := w.ListenSpec(ctx, coppice.ListenerSpec{Name: pool, Network: "tcp", Address: host + ":0"})
	if err != nil {
		return err
	}
	s := name(w)
	s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	return w.ServeTLS(ctx, ln, s)
}

// selfSigned returns a certificate for 127.0.0.1 and its key, in PEM.
func selfSigned(context.Context) ([]byte, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "coppice"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	return append(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...), nil
}

// TestTickets is N105 and P40: of n connections that a client makes to four
// workers all but the first resume its session.
func TestTickets(t *testing.T) {
	p := startTree(t, "tls")
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1)},
	}}
	defer client.CloseIdleConnections()
	url := fmt.Sprintf("https://%s/", p.Listeners()[0].Addr)
	const n = 16
	resumed, workers := 0, map[string]bool{}
	for range n {
		resp, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		workers[string(body)] = true
		if resp.TLS.DidResume {
			resumed++
		}
	}
	if resumed != n-1 || len(workers) != 4 {
		t.Errorf("%d of %d resumed, with %d workers", resumed, n, len(workers))
	}
}

// TestTicketsOfAnotherPool: a session is resumed by the workers of its pool, and by no others.
func TestTicketsOfAnotherPool(t *testing.T) {
	p := startTree(t, "tls, two pools")
	addrs := map[string]string{}
	for _, l := range p.Listeners() {
		addrs[l.Name] = l.Addr.String()
	}
	conf := &tls.Config{InsecureSkipVerify: true, ServerName: "one", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	resumed := func(pool string) bool {
		t.Helper()
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: conf}}
		defer client.CloseIdleConnections()
		resp, err := client.Get("https://" + addrs[pool] + "/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.ReadAll(resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.TLS.DidResume
	}
	for i, want := range []struct {
		pool    string
		resumes bool
	}{{"web", false}, {"web", true}, {"web", true}, {"other", false}, {"other", true}, {"web", false}} {
		if got := resumed(want.pool); got != want.resumes {
			t.Errorf("request %d, at %s: resumed %v, want %v", i, want.pool, got, want.resumes)
		}
	}
}

// TestServeTLS: TLS is served without a master, with HTTP/2 where the server serves it, and the
// server's own TLSConfig stays as it was; a server without a certificate is an error.
func TestServeTLS(t *testing.T) {
	pem, err := selfSigned(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pem, pem)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, proto string
		next        map[string]func(*http.Server, *tls.Conn, http.Handler)
	}{
		{"HTTP/2", "HTTP/2.0", nil},
		{"HTTP/1 alone", "HTTP/1.1", map[string]func(*http.Server, *tls.Conn, http.Handler){}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var w coppice.Worker
			ctx, cancel := context.WithCancel(t.Context())
			ln, err := w.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := name(&w)
			s.TLSConfig, s.TLSNextProto = &tls.Config{Certificates: []tls.Certificate{cert}}, tt.next
			served := make(chan error)
			go func() { served <- w.ServeTLS(ctx, ln, s) }()
			client := http.Client{Transport: &http.Transport{
				ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
			}}
			resp, err := client.Get("https://" + ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			client.CloseIdleConnections()
			if resp.Proto != tt.proto {
				t.Errorf("served by %s", resp.Proto)
			}
			cancel()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
	var w coppice.Worker
	ln, err := w.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.ServeTLS(t.Context(), ln, &http.Server{}); err == nil {
		t.Error("serves TLS without a certificate")
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("still listening")
	}
}
