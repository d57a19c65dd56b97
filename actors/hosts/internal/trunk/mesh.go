package trunk

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// Host names one start of a host.
type Host struct {
	// Name is that of the configuration, and of the certificate.
	Name string

	// Boot is unlike that of any other start of any host. With certificates it is one of NewBoot.
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

	// LastWait is how long the end of a lane, by its peer, waits for a sink that does not take what
	// came before. Default 1 s.
	LastWait time.Duration

	// MaxLanes is how many lanes a trunk has at most. Default 1,024.
	MaxLanes int

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

// Times and bounds of a Mesh. docs/constants.md says why.
const (
	handshakeTimeout = 5 * time.Second // for a connection to become a trunk
	maxHandshakes    = 64              // that peers have begun; beyond, the oldest is given up
	firstPause       = 100 * time.Millisecond
	maxPause         = 5 * time.Second
)

// Mesh is the end of all trunks of a host. It dials those of its peers to which it has no trunk,
// again and again, with pauses from 0.1 to 5 s; so do the peers, and of two connections between two
// hosts one remains. All methods may be called concurrently.
type Mesh struct {
	cfg    Config
	creds  *credentials // nil: plain
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	pairs     map[string]*pair
	boots     map[string]string // whose each boot is: the latest of each name
	listeners map[net.Listener]struct{}
	pending   []net.Conn // accepted, and not a trunk yet
	number    uint64     // of the last trunk that this side has decided on
}

// pair is what this host knows of another one. Its fields are guarded by the Mesh's mutex.
type pair struct {
	name    string
	turn    chan struct{} // has room for him who makes a connection the trunk
	changed chan struct{} // for the dialler
	address string        // empty: no longer a peer
	cur     *Trunk        // until Config.Down has returned
	lost    uint64        // number of the last trunk that has ended
	boots   []string      // in Mesh.boots, the latest last
}

// NewBoot returns the boot of a start of a host: 60 random bits behind 30 that are made of its
// name. So no host can say the boot of another, whose name its certificate does not have, but for
// names that have the same 30.
func NewBoot(host string) string { return markOf(host) + strings.ToLower(rand.Text()[:12]) }

func markOf(host string) string {
	sum := sha256.Sum256([]byte(host))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:6]
}

// maxBoots bounds the boots of one name that are remembered.
const maxBoots = 64

// badBootLocked returns why a host cannot have its boot: it is that of a host of another name, or
// was replaced by a later one.
func (m *Mesh) badBootLocked(host Host) string {
	if owner := m.boots[host.Boot]; owner != "" && owner != host.Name {
		return fmt.Sprintf("%s has the boot %s of %s", host.Name, host.Boot, owner)
	}
	if p := m.pairs[host.Name]; p != nil && slices.Contains(p.boots, host.Boot) && p.boots[len(p.boots)-1] != host.Boot {
		return fmt.Sprintf("boot %s of %s was replaced by %s: it is another machine of that name, or a copy", host.Boot, host.Name, p.boots[len(p.boots)-1])
	}
	return ""
}

// rememberLocked keeps whose a boot is.
func (m *Mesh) rememberLocked(p *pair, boot string) {
	if m.boots[boot] != "" {
		return
	}
	m.boots[boot] = p.name
	if p.boots = append(p.boots, boot); len(p.boots) > maxBoots {
		delete(m.boots, p.boots[0])
		p.boots = p.boots[1:]
	}
}

// New makes a Mesh, which has no trunks yet. Errors: ErrConfig, with each field that is wrong.
func New(cfg Config) (*Mesh, error) {
	var errs []error
	for field, name := range map[string]string{"Cluster": cfg.Cluster, "Self.Name": cfg.Self.Name, "Self.Boot": cfg.Self.Boot} {
		if !ValidName(name) {
			errs = append(errs, fmt.Errorf("%w: %s %q: 1 to 63 letters, digits, hyphens, underscores and dots", ErrConfig, field, name))
		}
	}
	if cfg.Silence == 0 {
		cfg.Silence = 2 * time.Second
	}
	if cfg.Silence < 100*time.Millisecond || cfg.Silence > time.Minute {
		errs = append(errs, fmt.Errorf("%w: Silence %v: from 100ms to 1m", ErrConfig, cfg.Silence))
	}
	if cfg.MaxLanes == 0 {
		cfg.MaxLanes = maxLanes
	}
	if cfg.LastWait == 0 {
		cfg.LastWait = lastWait
	}
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	m := &Mesh{cfg: cfg, pairs: make(map[string]*pair), boots: make(map[string]string), listeners: make(map[net.Listener]struct{}), number: uint64(time.Now().UnixNano())}
	if cfg.Files != nil {
		if !strings.HasPrefix(cfg.Self.Boot, markOf(cfg.Self.Name)) {
			errs = append(errs, fmt.Errorf("%w: Self.Boot %q is not of %s", ErrConfig, cfg.Self.Boot, cfg.Self.Name))
		}
		m.creds = &credentials{files: *cfg.Files, cluster: cfg.Cluster, host: cfg.Self.Name}
		if _, _, err := m.creds.load(); err != nil {
			errs = append(errs, err)
		}
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m, errors.Join(errs...)
}

// Serve accepts connections of peers, until Close or until the listener fails for good. It takes
// ownership of l. It returns ErrClosed after Close.
func (m *Mesh) Serve(l net.Listener) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		l.Close()
		return ErrClosed
	}
	m.listeners[l] = struct{}{}
	m.mu.Unlock()
	defer l.Close()
	pause := time.Duration(0)
	for {
		c, err := l.Accept()
		if err == nil {
			pause = 0
			m.accept(c)
			continue
		}
		if m.ctx.Err() != nil {
			return ErrClosed
		}
		if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
			return err
		}
		m.failed("", err) // out of descriptors, or the client has gone: that passes
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(pause):
		case <-m.ctx.Done():
			return ErrClosed
		}
	}
}

// accept begins the handshake of a connection. Of too many that are under way the oldest is given
// up, so that those who say nothing do not keep out those who do.
func (m *Mesh) accept(c net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		c.Close()
		return
	}
	if len(m.pending) == maxHandshakes {
		m.pending[0].Close()
		m.pending = m.pending[1:]
	}
	m.pending = append(m.pending, c)
	m.wg.Go(func() { // until the handshake is over, which takes handshakeTimeout at most
		ctx, cancel := context.WithTimeout(m.ctx, handshakeTimeout)
		defer cancel()
		name, err := m.handshake(ctx, c, nil)
		m.mu.Lock()
		if i := slices.Index(m.pending, c); i >= 0 {
			m.pending = slices.Delete(m.pending, i, i+1)
		}
		m.mu.Unlock()
		if err != nil && !errors.Is(err, errDuplicate) {
			m.failed(name, err)
		}
	})
}

func (m *Mesh) failed(host string, err error) {
	if m.cfg.Failed != nil && m.ctx.Err() == nil {
		m.cfg.Failed(host, err)
	}
}

// SetPeers says which hosts there are: the address of each by its name. Its own name is ignored. It
// replaces what was said before; a trunk to a host that is no longer named is closed, and a host
// that is not named is refused.
func (m *Mesh) SetPeers(addresses map[string]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	for name, p := range m.pairs {
		if _, ok := addresses[name]; !ok {
			p.address = ""
			if p.cur != nil {
				p.cur.Close("no longer a peer")
			}
			p.poke()
		}
	}
	for name, address := range addresses {
		if name == m.cfg.Self.Name || address == "" {
			continue
		}
		p := m.pairs[name]
		if p == nil {
			p = &pair{name: name, address: address, turn: make(chan struct{}, 1), changed: make(chan struct{}, 1)}
			m.pairs[name] = p
			m.wg.Go(func() { m.keep(p) }) // until the host is no peer, or Close
		}
		p.address = address
		p.poke()
	}
}

func (p *pair) poke() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Trunk returns the trunk to the host of that name, or nil if there is none now.
func (m *Mesh) Trunk(host string) *Trunk {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.pairs[host]; p != nil {
		return p.cur.alive()
	}
	return nil
}

// ByBoot returns the trunk to the host of that boot, or nil if there is none now.
func (m *Mesh) ByBoot(boot string) *Trunk {
	for _, t := range m.Trunks() {
		if t.peer.Boot == boot {
			return t
		}
	}
	return nil
}

// Trunks returns the trunks that there are now, by the names of their hosts.
func (m *Mesh) Trunks() []*Trunk {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ts []*Trunk
	for _, p := range m.pairs {
		if t := p.cur.alive(); t != nil {
			ts = append(ts, t)
		}
	}
	slices.SortFunc(ts, func(a, b *Trunk) int { return strings.Compare(a.peer.Name, b.peer.Name) })
	return ts
}

// alive returns t if it has not ended. t may be nil.
func (t *Trunk) alive() *Trunk {
	if t == nil {
		return nil
	}
	select {
	case <-t.done:
		return nil
	default:
		return t
	}
}

// Close closes the listeners and each trunk, and waits until Down was called for each, and no
// goroutine of the Mesh is left. It takes a second at most, and what sinks and callbacks take to
// return. It is not called from a callback.
func (m *Mesh) Close() error {
	m.mu.Lock()
	m.closed = true
	m.cancel()
	for l := range m.listeners {
		l.Close()
	}
	for _, p := range m.pairs {
		if p.cur != nil {
			p.cur.Close("the host ends")
		}
	}
	m.mu.Unlock()
	m.wg.Wait()
	return nil
}
