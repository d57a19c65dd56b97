package trunk

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"sync"
)

// CertFiles are the files of a host's certificate, its key, and the CA's certificates, in PEM. They
// are read anew for a handshake if one of them has changed; if they cannot be used then, those read
// last are used on, and Config.Failed says so. Trunks that are up stay up.
//
// The certificate has the URI coppice://cluster/host, or spiffe://cluster/host, as a subject
// alternative name, and is good for both sides of TLS.
type CertFiles struct {
	Cert, Key, CA string
}

// credentials are what was read from CertFiles.
type credentials struct {
	files         CertFiles
	cluster, host string

	mu    sync.Mutex
	infos [3]os.FileInfo
	cert  *tls.Certificate
	roots *x509.CertPool
}

// load returns the certificate and the CA's, read anew if a file has changed. With an error it
// returns those of before, if there are any.
func (c *credentials) load() (*tls.Certificate, *x509.CertPool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var infos [3]os.FileInfo
	same := c.cert != nil
	for i, name := range []string{c.files.Cert, c.files.Key, c.files.CA} {
		info, err := os.Stat(name)
		if err != nil {
			return c.cert, c.roots, fmt.Errorf("%w: %w", ErrConfig, err)
		}
		infos[i] = info
		was := c.infos[i]
		same = same && os.SameFile(was, info) && was.ModTime().Equal(info.ModTime()) && was.Size() == info.Size()
	}
	if same {
		return c.cert, c.roots, nil
	}
	cert, roots, err := c.read()
	if err != nil {
		return c.cert, c.roots, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	c.infos, c.cert, c.roots = infos, cert, roots
	return cert, roots, nil
}

func (c *credentials) read() (*tls.Certificate, *x509.CertPool, error) {
	cert, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("%s, %s: %w", c.files.Cert, c.files.Key, err)
	}
	pem, err := os.ReadFile(c.files.CA)
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("%s: no certificate", c.files.CA)
	}
	if name, err := nameIn(cert.Leaf, c.cluster); err != nil || name != c.host {
		return nil, nil, fmt.Errorf("%s: the certificate is not of coppice://%s/%s but of %v", c.files.Cert, c.cluster, c.host, cert.Leaf.URIs)
	}
	return &cert, roots, nil
}

// config returns the configuration of one handshake. verified gets the name in the peer's
// certificate.
func (c *credentials) config(server bool, verified func(host string) error) (*tls.Config, error) {
	cert, roots, err := c.load()
	if cert == nil {
		return nil, err
	}
	usage := x509.ExtKeyUsageServerAuth
	if server {
		usage = x509.ExtKeyUsageClientAuth
	}
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		Certificates:                []tls.Certificate{*cert},
		ClientAuth:                  tls.RequireAnyClientCert,
		DynamicRecordSizingDisabled: true, // what waits goes in the longest records
		SessionTicketsDisabled:      true, // a session that is resumed would not be verified by the files of now
		InsecureSkipVerify:          true, //nolint:gosec // VerifyConnection does it: hosts are told by a URI, not by a DNS name
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return fmt.Errorf("%w: no certificate", ErrRefused)
			}
			leaf, between := s.PeerCertificates[0], x509.NewCertPool()
			for _, other := range s.PeerCertificates[1:] {
				between.AddCert(other)
			}
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
				return fmt.Errorf("%w: %w", ErrRefused, err)
			}
			name, err := nameIn(leaf, c.cluster)
			if err != nil {
				return fmt.Errorf("%w: %w", ErrRefused, err)
			}
			return verified(name)
		},
	}, err
}

// nameIn returns the name of the host of the cluster that the certificate is for: of the one URI
// that says so.
func nameIn(cert *x509.Certificate, cluster string) (string, error) {
	name := ""
	for _, u := range cert.URIs {
		n, ok := hostIn(u, cluster)
		if !ok {
			continue
		}
		if name != "" && name != n {
			return "", fmt.Errorf("the certificate is for two hosts, %s and %s", name, n)
		}
		name = n
	}
	if name == "" {
		return "", fmt.Errorf("the certificate is for no host of cluster %s, but for %v", cluster, cert.URIs)
	}
	return name, nil
}

func hostIn(u *url.URL, cluster string) (string, bool) {
	if u.Scheme != "coppice" && u.Scheme != "spiffe" || u.Host != cluster || len(u.Path) < 2 {
		return "", false
	}
	return u.Path[1:], ValidName(u.Path[1:])
}
