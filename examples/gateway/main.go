// Gateway is a reverse proxy in worker processes: for HTTP, HTTPS with a certificate for each name,
// and websockets, behind a load balancer that speaks the PROXY protocol (HAProxy, a cloud's network
// balancer, nginx with proxy_protocol on). The service behind it sees the client's address, and one
// client has one worker.
//
//	go -C examples/gateway run . -backend http://127.0.0.1:8000
//	go -C examples/gateway run . -chaos
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/coppice-go/coppice/examples/internal/chaos"
	coppice "github.com/coppice-go/coppice/runtime"
)

var (
	plain    = flag.String("addr", "127.0.0.1:8090", "listen `address` of HTTP; port 0 picks one")
	secure   = flag.String("tls", "127.0.0.1:8443", "listen `address` of HTTPS; port 0 picks one")
	names    = flag.String("names", "shop.example,chat.example", "`names` that are served by HTTPS, each with a certificate made for it")
	backend  = flag.String("backend", "", "`URL` of the service; without it one in the master, to try it with")
	workers  = flag.Int("workers", 2, "worker processes")
	shutdown = flag.Duration("shutdown", 10*time.Second, "how long a worker may take to end")
	trust    = flag.String("trust", "127.0.0.0/8,::1/128", "address `ranges` of balancers, whose word is taken")
	header   = flag.Duration("header", 2*time.Second, "how long a balancer may take to write its header")
	broken   = flag.Bool("chaos", false, "kill and reload it under clients, count at them what it cost, and end")
)

// configuration is made in the master, at the start and at each reload: the place to read
// certificates that were renewed.
type configuration struct {
	Backend string
	Certs   map[string][]byte // by name; PEM of certificate and key
}

func main() {
	flag.Parse()
	if !coppice.IsChild() && *backend == "" {
		*backend = tryout()
	}
	// The listener process looks at the header's source, and leaves the header where it is.
	peek := coppice.Peek{Proxy: true, Timeout: *header}
	coppice.Main(coppice.Config{
		Load: func(context.Context) ([]byte, error) {
			certs, err := certificates(strings.Split(*names, ","))
			if err != nil {
				return nil, err
			}
			return json.Marshal(configuration{*backend, certs})
		},
		Hooks: coppice.Hooks{Started: started},
		Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "http", Network: "tcp", Address: *plain, Policy: coppice.Hash, Peek: peek},
			coppice.ListenerSpec{Name: "https", Network: "tcp", Address: *secure, Policy: coppice.Hash, Peek: peek},
			coppice.Pool{Name: "web", Size: *workers, Shutdown: *shutdown, Worker: serve},
		},
	})
}

// serve is the worker function.
func serve(ctx context.Context, w *coppice.Worker) error {
	var conf configuration
	if err := json.Unmarshal(w.Config(), &conf); err != nil {
		return err
	}
	certs := map[string]*tls.Certificate{}
	for name, pem := range conf.Certs {
		cert, err := tls.X509KeyPair(pem, pem)
		if err != nil {
			return err
		}
		certs[name] = &cert
	}
	proxy, err := forward(w, conf.Backend)
	if err != nil {
		return err
	}
	bySNI := &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		return certs[h.ServerName], nil // nil: the name is not recognized
	}}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ends := make(chan error, 2)
	for _, name := range []string{"http", "https"} {
		ln, err := w.Listener(ctx, name)
		if err != nil {
			return err
		}
		if ln, err = behind(ln, strings.Split(*trust, ","), *header); err != nil {
			return err
		}
		go func() { // ends with ctx, or ends the worker
			defer cancel()
			s := &http.Server{Handler: proxy, TLSConfig: bySNI, ReadHeaderTimeout: 10 * time.Second}
			if name == "https" {
				ends <- w.ServeTLS(ctx, ln, s)
			} else {
				ends <- w.Serve(ctx, ln, s)
			}
		}()
	}
	return errors.Join(<-ends, <-ends)
}

// forward returns the proxy. It passes websockets on as well: their connections last until one side
// closes them, or the worker's drain is over.
func forward(w *coppice.Worker, backend string) (http.Handler, error) {
	to, err := url.Parse(backend)
	if err != nil {
		return nil, err
	}
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.SetXForwarded()
		r.Out.Host = r.In.Host
		r.Out.Header.Set("X-Gateway", w.Name())
		r.Out.Header.Set("X-Client", r.In.RemoteAddr)
	}}, nil
}

// behind reads the header off each connection of ln. It closes a connection of a trusted address
// without a header, and one of another address with a header.
func behind(ln net.Listener, trusted []string, timeout time.Duration) (net.Listener, error) {
	policy, err := proxyproto.TrustProxyHeaderFromRanges(trusted)
	if err != nil {
		return nil, err
	}
	return &listener{proxyproto.Listener{Listener: ln, ConnPolicy: policy, ReadHeaderTimeout: timeout}}, nil
}

type listener struct{ proxyproto.Listener }

// Accept returns connections that name what they wrap, as tls.Conn does: so their traces are found.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if pc, ok := c.(*proxyproto.Conn); ok {
		return conn{pc}, err
	}
	return c, err
}

type conn struct{ *proxyproto.Conn }

// NetConn returns the connection without the header.
func (c conn) NetConn() net.Conn { return c.Raw() }

func started(rt *coppice.Runtime) {
	addrs := map[string]string{}
	for _, l := range rt.Listeners() {
		addrs[l.Name] = l.Addr.String()
		fmt.Printf("%s://%s/  master pid %d\n", l.Name, l.Addr, os.Getpid())
	}
	if *broken {
		chaos.Run(rt, func(rt *coppice.Runtime) { harm(rt, addrs["https"]) })
	}
}
