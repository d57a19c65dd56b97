// Front is a service that its workers cannot harm. The master is root: it opens the ports and the
// key. The workers are nobody, without network, files, capabilities and programs; connections are
// handed to them. Those of the pool tls have the key, by a descriptor; those of plain have not.
//
//	sudo go run ./examples/front
//	sudo go run ./examples/front -attack
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
)

func main() {
	secure := flag.String("tls", ":443", "`address` of HTTPS; port 0 picks one")
	plain := flag.String("http", ":80", "`address` of HTTP")
	dir := flag.String("dir", "/run/coppice-front", "`directory` of the key")
	attack := flag.Bool("attack", false, "have a worker try what a hostile one would, print what stopped it, and end")
	flag.Parse()
	key := filepath.Join(*dir, "key.pem")
	if !coppice.IsChild() {
		if os.Geteuid() != 0 {
			log.Fatal("front: only root may give its workers another user, and open ports below 1024")
		}
		if err := makeKey(key); err != nil {
			log.Fatal(err)
		}
	}

	locked := coppice.Environment{User: "nobody", MaxProcs: coppice.FairShare, Sandbox: coppice.Sandbox{
		NoFiles: true, NoNetwork: true, NoCapabilities: true, Scoped: true, Syscalls: "compute",
	}}
	withKey := locked
	withKey.Files = []coppice.File{{Name: "key", Path: key}}
	cfg := coppice.Config{
		Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) {
			for _, l := range rt.Listeners() {
				fmt.Println(l.Name, l.Addr)
			}
			if *attack {
				go func() { _ = rt.Shutdown(context.Background()) }() // Main has the error
			}
		}},
		Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "https", Network: "tcp", Address: *secure},
			coppice.ListenerSpec{Name: "http", Network: "tcp", Address: *plain},
			coppice.Pool{Name: "tls", Size: 2, Worker: serveTLS, Environment: withKey},
			coppice.Pool{Name: "plain", Size: 2, Worker: servePlain, Environment: locked},
		},
	}
	if *attack {
		locked.Sandbox.DenyWithError = true // so that it lives to tell
		locked.Rlimits = []coppice.Rlimit{{Name: "nofile", Soft: 256, Hard: 256}, {Name: "as", Soft: 32 << 30, Hard: 32 << 30}}
		locked.Env = []string{"KEY=" + key}
		cfg.Children = append(cfg.Children, coppice.Pool{Name: "hostile", Size: 1, Worker: tryAll, Environment: locked})
	}
	coppice.Main(cfg)
}

func serveTLS(ctx context.Context, w *coppice.Worker) error {
	f, err := w.File("key")
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20)) // siblings share the position of the file
	if err != nil {
		return err
	}
	cert, err := tls.X509KeyPair(b, b)
	if err != nil {
		return err
	}
	ln, err := w.Listener(ctx, "https")
	if err != nil {
		return err
	}
	return w.ServeTLS(ctx, ln, &http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(rw, "%s, user %d, in no network\n", w.Name(), os.Getuid())
		}),
	})
}

func servePlain(ctx context.Context, w *coppice.Worker) error {
	ln, err := w.Listener(ctx, "http")
	if err != nil {
		return err
	}
	return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, "https://"+r.Host+r.URL.Path, http.StatusMovedPermanently)
	})})
}

// makeKey writes a key and a certificate of it, which only root can read, unless they are there.
func makeKey(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().AddDate(1, 0, 0)}
	cert, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return err
	}
	b := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})...)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}
