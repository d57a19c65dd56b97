package trunk

// CertFiles are the files of a host's certificate, its key, and the CA's certificates, in PEM. They are
// read anew for a handshake if one of them has changed; if they cannot be used then, those read last are
// used on, and Mesh's Failed says so. Trunks that are up stay up.
//
// The certificate has the URI coppice://cluster/host as a subject alternative name, and is good for both
// sides of TLS.
type CertFiles struct {
	Cert, Key, CA string
}
