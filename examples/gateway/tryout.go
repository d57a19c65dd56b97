package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"

	coppice "github.com/coppice-go/coppice/runtime"
)

// tryout starts a service to try the gateway with, which lasts as long as the program, and returns
// its URL. It says whom it serves, and sends back what it hears by websockets.
func tryout() (url string) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(rw, "%s serves %s\n", r.Header.Get("X-Gateway"), r.Header.Get("X-Client"))
	})
	mux.HandleFunc("GET /slow", func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Println("answering slowly")
		<-time.After(200 * time.Millisecond)
		fmt.Fprintln(rw, "done")
	})
	mux.HandleFunc("GET /counts", func(rw http.ResponseWriter, _ *http.Request) {
		coppice.Running().Snapshot().Walk(func(n coppice.Tree) {
			for _, l := range n.Listeners {
				if l.Stats == nil || l.Name != "http" {
					continue
				}
				open := 0
				for _, w := range l.Stats.Workers {
					open += w.Counts.Open()
				}
				fmt.Fprintf(rw, "open %d peeked %d claimed %d\n", open, l.Stats.Counts.Peeked, l.Stats.Counts.Claimed)
			}
		})
	})
	mux.HandleFunc("GET /echo", func(rw http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(rw, r, nil)
		if err != nil {
			return // it has answered
		}
		defer func() { _ = c.CloseNow() }()
		for {
			kind, text, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, text) != nil {
				return
			}
		}
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(http.Serve(ln, mux)) }() // ends with the program
	return "http://" + ln.Addr().String()
}

// certificates makes a self-signed certificate for each name, for tests only.
func certificates(names []string) (map[string][]byte, error) {
	certs := map[string][]byte{}
	for _, name := range names {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		t := &x509.Certificate{
			SerialNumber: big.NewInt(1), DNSNames: []string{name},
			NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().AddDate(0, 1, 0),
		}
		der, err := x509.CreateCertificate(rand.Reader, t, t, public, private)
		if err != nil {
			return nil, err
		}
		key, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			return nil, err
		}
		certs[name] = append(
			pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
			pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	}
	return certs, nil
}
