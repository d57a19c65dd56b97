package trunk

import (
	"context"
	"net"
	"time"
)

// Host names one start of a host.
type Host struct {
	// Name is that of the configuration, and of the certificate.
	Name string

	// Boot is random, and unlike that of any other start of any host.
	Boot string

	// Incarnation counts the gateways of a boot: a later one replaces an earlier one.
	Incarnation uint64
}

// Config configures a Mesh. Zero fields mean the default.
type Config struct {
	// Cluster is the name of the cluster: hosts of another one are refused. Required.
	Cluster string

	// Self is this host. Required.
	Self Host

	// Files are this host's certificate and the CA for all. Nil: the connections are plain,
	// and hosts are who they say; for loopback only, which the caller sees to.
	Files *CertFiles

	// Silence is how long nothing may come from a peer, and a peer may take nothing, before the
	// trunk is lost. A beat is sent each quarter of it. From 100 ms to 1 min, default 2 s.
	Silence time.Duration

	// Dial connects to the address of a peer, within ctx. Default: TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	// Open is called for each lane that a peer asks for, with what its opener says of it, at most
	// 4 KiB, borrowed until it returns. It must not block: the lane is accepted or ended later, by
	// Lane.Accept or Lane.End. Nil: such lanes are ended.
	Open func(l *Lane, info []byte)

	// Stream is called for each stream of bytes that a peer opens, with the name of what it is for,
	// on a goroutine of its own. It takes ownership of c. Nil: streams are refused.
	Stream func(t *Trunk, service string, c net.Conn)

	// Up and Down tell of each trunk, once each and in this order, one call at a time for a host;
	// they must not block. A frame of the trunk, and a call of Open, comes after Up has returned;
	// Down comes after each lane of the trunk has heard of its end. Optional.
	Up   func(t *Trunk)
	Down func(t *Trunk, err error)

	// Failed tells of a connection that did not become a trunk, with the name of the host if it is
	// known. An error wraps ErrRefused if a human must see to it. It must not block. Optional.
	Failed func(host string, err error)
}

// Mesh is the end of all trunks of a host. It dials those of its peers to which it has no trunk, again
// and again, with pauses from 0.1 to 5 s; so do the peers, and of two connections between two hosts
// one remains. All methods may be called concurrently.
type Mesh struct{}

// New makes a Mesh, which has no trunks yet. Errors: ErrConfig, with each field that is wrong.
func New(cfg Config) (*Mesh, error) { panic("not yet") }

// Serve accepts connections of peers, until Close or until the listener fails for good. It takes
// ownership of l. It returns ErrClosed after Close.
func (m *Mesh) Serve(l net.Listener) error { panic("not yet") }

// SetPeers says which hosts there are: the address of each by its name. Its own name is ignored. It
// replaces what was said before; a trunk to a host that is no longer named is closed, and a host that
// is not named is refused.
func (m *Mesh) SetPeers(addresses map[string]string) {}

// Trunk returns the trunk to the host of that name, or nil if there is none now.
func (m *Mesh) Trunk(host string) *Trunk { return nil }

// ByBoot returns the trunk to the host of that boot, or nil if there is none now.
func (m *Mesh) ByBoot(boot string) *Trunk { return nil }

// Trunks returns the trunks that there are now, by the names of their hosts.
func (m *Mesh) Trunks() []*Trunk { return nil }

// Close closes the listeners and each trunk, and waits until Down was called for each, and no goroutine
// of the Mesh is left.
func (m *Mesh) Close() error { return nil }
