package etcd_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/etcd"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// authority makes certificates in a directory.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.write("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) at(file string) string { return filepath.Join(a.dir, file) }

// write makes a certificate; the first is the authority's own.
func (a *authority) write(name string, cert *x509.Certificate) hosts.TLS {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	cert.SerialNumber, cert.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(time.Hour)
	if a.cert == nil {
		a.cert, a.key = cert, key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "EC PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(a.at(file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return hosts.TLS{Cert: a.at(name + ".pem"), Key: a.at(name + ".key"), CA: a.at("ca.pem")}
}

// hold registers a name as a host, and gives it back.
func hold(t *testing.T, e hosts.Engine, host string) hosts.Fence {
	t.Helper()
	n, err := hosts.NewNames(e, hosts.NamesConfig{Cluster: "shop", Host: host, Lease: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	h, err := n.Register(ctx, "ledger", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.Release(ctx), n.Close(ctx)); err != nil {
		t.Fatal(err)
	}
	return h.Fence()
}

// TestExternalTLS: an etcd over https that verifies its clients is reached with a certificate, and
// not without one. The error has the reason, as far as the other side gives it.
func TestExternalTLS(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	server := a.write("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: usage})
	good := a.write("client", &x509.Certificate{ExtKeyUsage: usage})
	foreign := other.write("client", &x509.Certificate{ExtKeyUsage: usage})

	etcd.Embedded{}.Quick() // for the size of its log
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel, cfg.UnsafeNoFsync = shortDir(t), "panic", true
	none := url.URL{Scheme: "unix", Host: filepath.Join(cfg.Dir, "peer.sock")}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{none}, []url.URL{{Scheme: "unix", Host: "a.peer:80"}}
	cfg.ListenClientUrls = []url.URL{{Scheme: "https", Host: "127.0.0.1:0"}}
	cfg.InitialCluster = cfg.Name + "=unix://a.peer:80"
	cfg.ClientTLSInfo = transport.TLSInfo{CertFile: server.Cert, KeyFile: server.Key, TrustedCAFile: server.CA, ClientCertAuth: true}
	s, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	endpoint := "https://" + s.Clients[0].Addr().String()

	e, err := etcd.External{Endpoints: []string{endpoint}, TLS: good}.Open("a")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if f := hold(t, e, "a"); f.Number == 0 {
		t.Error("no fence")
	}
	for _, row := range []struct { // who is refused hears why, or that the connection was closed
		what, want string
		spec       etcd.External
	}{
		{"no certificate", "", etcd.External{Endpoints: []string{endpoint}, TLS: hosts.TLS{CA: good.CA}}},
		{"another authority for the server", "unknown authority", etcd.External{Endpoints: []string{endpoint}, TLS: hosts.TLS{Cert: good.Cert, Key: good.Key, CA: foreign.CA}}},
		{"a certificate of another authority", "", etcd.External{Endpoints: []string{endpoint}, TLS: hosts.TLS{Cert: foreign.Cert, Key: foreign.Key, CA: good.CA}}},
		{"another name", "wanted to match localhost", etcd.External{Endpoints: []string{strings.Replace(endpoint, "127.0.0.1", "localhost", 1)}, TLS: good}},
		{"no server there", "refused", etcd.External{Endpoints: []string{"https://127.0.0.1:1"}, TLS: good}},
		{"a name that is none", "no such host", etcd.External{Endpoints: []string{"https://etcd.invalid:2379"}, TLS: good}},
	} {
		t.Run(row.what, func(t *testing.T) {
			t.Parallel() // each waits for its time
			e, err := row.spec.Open("a")
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			// A connection may not have failed yet, or be tried anew just then.
			runtimetest.Eventually(t, "the reason", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
				if _, err = e.Commit(ctx, hosts.Txn{Then: []hosts.Op{{Key: "k"}}}); !errors.Is(err, hosts.ErrUnavailable) {
					t.Fatal(err)
				}
				return strings.Contains(err.Error(), row.want)
			})
		})
	}
}
