// Tls is an HTTPS service in worker processes. A client resumes its session with
// any worker: their ticket keys are one tree's.
//
//	go run ./examples/tls -addr 127.0.0.1:8443
//	go run ./examples/tls -chaos
package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/coppice-go/coppice/examples/internal/chaos"
	coppice "github.com/coppice-go/coppice/runtime"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8443", "listen `address`; port 0 picks one")
	workers := flag.Int("workers", 4, "worker processes")
	broken := flag.Bool("chaos", false, "kill and reload it under clients, count at them what it cost, and end")
	flag.Parse()

	coppice.Main(coppice.Config{
		// In the master, at the start and at each reload: the place to read a
		// certificate that was renewed.
		Load: certificate,
		Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) {
			url := fmt.Sprintf("https://%s/", rt.Listeners()[0].Addr)
			fmt.Printf("%s  master pid %d\n", url, os.Getpid())
			if *broken {
				chaos.Run(rt, func(rt *coppice.Runtime) { harm(rt, url) })
			} else {
				fmt.Print(rt.Snapshot())
			}
		}},
		Children: []coppice.ChildSpec{coppice.Pool{
			Name: "web", Size: *workers,
			Worker: func(ctx context.Context, w *coppice.Worker) error {
				pair, err := tls.X509KeyPair(w.Config(), w.Config())
				if err != nil {
					return err
				}
				ln, err := w.Listen("tcp", *addr)
				if err != nil {
					return err
				}
				return w.ServeTLS(ctx, ln, &http.Server{
					Handler:   handler(w),
					TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}},
				})
			},
		}},
	})
}

// handler answers with the worker's name, and whether the session was resumed.
func handler(w *coppice.Worker) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		session := "new session"
		if r.TLS.DidResume {
			session = "resumed"
		}
		fmt.Fprintf(rw, "%s of generation %d: %s, %s, %s\n", w.Name(), w.Generation(), session, tls.VersionName(r.TLS.Version), r.Proto)
	})
}

// certificate makes a self-signed certificate for this machine, for tests only, and its key.
func certificate(context.Context) ([]byte, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "coppice example"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().AddDate(0, 1, 0),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
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
