package hosts

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/coppice-go/coppice/actors/hosts/internal/trunk"
)

// Lives of what WriteCA and WriteCert make.
const (
	lifeOfCA   = 10 * 365 * 24 * time.Hour
	lifeOfCert = 365 * 24 * time.Hour
	clockSkew  = time.Hour // before now, for hosts whose clocks are behind
)

// WriteCA makes a certificate authority for a cluster, for its first hour: a certificate for all
// hosts, good for ten years, and its key for who makes certificates, in PEM. The files must not
// exist; the key's can be read by its owner alone.
func WriteCA(certFile, keyFile, cluster string) error {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "coppice cluster " + cluster},
		NotAfter:              time.Now().Add(lifeOfCA),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true, // it signs hosts, not other CAs
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	return writePair(certFile, keyFile, cluster, "", template, nil, nil)
}

// WriteCert makes the certificate of a host of the cluster, good for a year, and its key, signed by
// the CA of the two files caCert and caKey. A host that runs reads files that take the place of its
// own at the next handshake, so a renewal is a WriteCert beside them and two renames. The rules of
// WriteCA hold.
func WriteCert(caCert, caKey, certFile, keyFile, cluster, host string) error {
	pair, err := tls.LoadX509KeyPair(caCert, caKey)
	if err != nil {
		return fmt.Errorf("hosts: CA %s, %s: %w", caCert, caKey, err)
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: host},
		NotAfter:    time.Now().Add(lifeOfCert),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	return writePair(certFile, keyFile, cluster, host, template, pair.Leaf, pair.PrivateKey)
}

// writePair makes a key and signs its certificate, by the key itself if there is no parent.
func writePair(certFile, keyFile, cluster, host string, template, parent *x509.Certificate, signer crypto.PrivateKey) error {
	id := &url.URL{Scheme: "coppice", Host: cluster}
	if host != "" {
		id.Path = "/" + host
	}
	if !trunk.ValidName(cluster) || host != "" && !trunk.ValidName(host) {
		return fmt.Errorf("hosts: certificate of %q in cluster %q: not a name", host, cluster)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("hosts: key: %w", err)
	}
	template.URIs = []*url.URL{id}
	template.NotBefore = time.Now().Add(-clockSkew)
	if parent == nil {
		parent, signer = template, key
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return fmt.Errorf("hosts: certificate: %w", err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("hosts: key: %w", err)
	}
	if err := writePEM(keyFile, "PRIVATE KEY", secret, 0o600); err != nil {
		return err
	}
	if err := writePEM(certFile, "CERTIFICATE", cert, 0o644); err != nil {
		return errors.Join(err, os.Remove(keyFile))
	}
	return nil
}

func writePEM(name, kind string, b []byte, mode os.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("hosts: %w", err)
	}
	if err = errors.Join(pem.Encode(f, &pem.Block{Type: kind, Bytes: b}), f.Sync(), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("hosts: %s: %w", name, err), os.Remove(name))
	}
	return nil
}
