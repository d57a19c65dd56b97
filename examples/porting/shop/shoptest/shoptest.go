//go:build linux

// Package shoptest tries the service, before and after.
package shoptest

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/coppice-go/coppice/examples/porting/shop"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// A Shop is a service that runs.
type Shop struct {
	*testing.T
	P *runtimetest.Program

	host   string // an address of its own
	client http.Client
	orders int
}

// Start starts the program of the test and waits until it serves.
func Start(t *testing.T) *Shop {
	t.Helper()
	s := &Shop{T: t, host: fmt.Sprintf("127.%d.%d.%d", mathrand.N(256), mathrand.N(256), 2+mathrand.N(253))}
	s.client.Transport = &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	dir := t.TempDir()
	cert := filepath.Join(dir, "cert.pem")
	if err := os.WriteFile(cert, certificate(t), 0o600); err != nil {
		t.Fatal(err)
	}
	s.P = runtimetest.Start(t, nil, "serve", "--https", s.host+":8443", "--grpc", s.host+":9000", "--metrics", s.host+":9090",
		"--cert", cert, "--database", filepath.Join(dir, "orders"))
	s.P.Await("^serving$")
	runtimetest.Eventually(t, "metrics", func() bool { return s.metrics() != "" })
	return s
}

func certificate(t *testing.T) []byte {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().AddDate(0, 1, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
}

// Order makes n orders, and sees them by HTTPS, by gRPC and in the metrics.
func (s *Shop) Order(n int) {
	s.Helper()
	for range n {
		resp, err := s.client.Post("https://"+s.host+":8443/", "", nil)
		if err != nil {
			s.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			s.Errorf("an order: %s", resp.Status)
		}
		s.orders++
	}
	if got, err := s.get("https://" + s.host + ":8443/"); err != nil || got != fmt.Sprint(s.orders) {
		s.Errorf("by HTTPS %q orders, %v, want %d", got, err, s.orders)
	}
	conn, err := grpc.NewClient(s.host+":9000", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		s.Fatal(err)
	}
	defer conn.Close()
	count := new(wrapperspb.Int64Value)
	if err := conn.Invoke(s.Context(), shop.MethodCount, new(emptypb.Empty), count); err != nil || count.Value != int64(s.orders) {
		s.Errorf("by gRPC %d orders, %v, want %d", count.Value, err, s.orders)
	}
	runtimetest.Eventually(s, "the metrics have each order", func() bool {
		return strings.Contains(s.metrics(), fmt.Sprintf("\nshop_orders_total %d\n", s.orders))
	})
}

func (s *Shop) metrics() string {
	text, err := s.get("http://" + s.host + ":9090/metrics")
	if err != nil {
		return ""
	}
	return text
}

func (s *Shop) get(url string) (string, error) {
	resp, err := s.client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}
