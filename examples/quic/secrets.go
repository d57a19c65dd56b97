package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// resetBlock is the PEM type of the key of stateless resets.
const resetBlock = "QUIC STATELESS RESET KEY"

// secrets returns a function that makes the secrets of all workers of all generations at its first
// call: a certificate for tests only, its key, and the key of stateless resets.
func secrets() func(context.Context) ([]byte, error) {
	once := sync.OnceValues(makeSecrets)
	return func(context.Context) ([]byte, error) { return once() }
}

func makeSecrets() ([]byte, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "coppice example"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().AddDate(0, 1, 0),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	var reset quic.StatelessResetKey
	_, _ = rand.Read(reset[:]) // never fails (crypto/rand)
	var all []byte
	for _, b := range []pem.Block{
		{Type: "CERTIFICATE", Bytes: certificate}, {Type: "PRIVATE KEY", Bytes: key}, {Type: resetBlock, Bytes: reset[:]},
	} {
		all = append(all, pem.EncodeToMemory(&b)...)
	}
	return all, nil
}

// parse takes apart what secrets made.
func parse(all []byte) (pair tls.Certificate, reset quic.StatelessResetKey, err error) {
	pair, err = tls.X509KeyPair(all, all)
	for rest := all; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return pair, reset, errors.Join(err, errors.New("no key of stateless resets"))
		}
		if b.Type == resetBlock && copy(reset[:], b.Bytes) == len(reset) {
			return pair, reset, err
		}
	}
}
