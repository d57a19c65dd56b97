package hosts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/coppice-go/coppice/actors/hosts/internal/trunk"
)

// Config joins a tree to the trees of other hosts: it is what coppice.Config.Hosts takes. All hosts
// of a cluster have one with the same Cluster, and each has a Name of its own.
type Config struct {
	// Cluster is the name of the cluster; a host of another one is refused. Required.
	Cluster string

	// Name is the name of this host. Required.
	Name string

	// Listen is the address and port at which the other hosts connect, over TCP. It names an
	// address, as there is no port by default, and none on all addresses by accident. Required.
	Listen string

	// Peers are the addresses of the hosts, by name: Static, PeersFile, DNS, or something of your
	// own. This one may be among them. A host that is not there is refused. nil = no other host.
	Peers Peers

	// TLS has this host's certificate. Without it the trunks are plain, which is refused but on
	// loopback.
	TLS TLS

	// Silence is how long nothing may come from a host before it counts as unreachable, from 100 ms
	// to 1 min. Zero = 2 s.
	Silence time.Duration

	// Engine is what the hosts agree by, the same on each: hosts/etcd has one that runs in the
	// hosts themselves, and one for an etcd of your own. nil = there are no names of the cluster.
	Engine EngineSpec

	// Dir is a directory of this host alone, which is made with mode 0700 if it is not there. By
	// locks on files in it a host that is started again knows which processes of the former start
	// have died, and ends their leases at once. "" = it waits for the leases.
	Dir string

	// Lease is for how long the engine keeps what a process of this host holds when it does not
	// hear of it, from MinLease to MaxLease; zero = DefaultLease. Margin is by how much earlier
	// owners are asked to stop, and how long they have for it: from 50 ms to a half of Lease;
	// zero = a tenth of it, and 250 ms at least.
	Lease, Margin time.Duration

	// Logger gets what a human must see to: hosts that are refused, certificates that cannot be
	// read. nil = slog.Default().
	Logger *slog.Logger

	// Of tests.
	dial      func(ctx context.Context, address string) (net.Conn, error)
	running   func(*trunk.Mesh)
	lastWait  time.Duration
	openWait  time.Duration
	orderWait time.Duration
	maxLanes  int
	opening   func()
	pause     time.Duration // between two looks at Peers
}

// TLS names files in PEM, which are read anew when they have changed. The certificate has the URI
// coppice://cluster/name, and both sides verify it against CA. TLS is 1.3.
type TLS struct{ Cert, Key, CA string }

// HostName returns Name.
func (c *Config) HostName() string { return c.Name }

// NewBoot returns what tells a start of this host from all others: random, and bound to its name.
// Package runtime calls it.
func (c *Config) NewBoot() string { return trunk.NewBoot(c.Name) }

// Validate returns what is wrong, joined.
func (c *Config) Validate() error {
	var errs []error
	bad := func(field string, value any, why string) {
		errs = append(errs, fmt.Errorf("hosts: config: %s %q: %s", field, fmt.Sprint(value), why))
	}
	for _, n := range []struct{ field, value string }{{"Cluster", c.Cluster}, {"Name", c.Name}} {
		if !trunk.ValidName(n.value) {
			bad(n.field, n.value, "is not 1 to 63 letters, digits, hyphens, underscores and dots, no hyphen or dot first")
		}
	}
	if host, port, err := net.SplitHostPort(c.Listen); err != nil {
		bad("Listen", c.Listen, err.Error())
	} else if host == "" || port == "" || port == "0" {
		bad("Listen", c.Listen, "names no address, or no port")
	}
	if c.TLS == (TLS{}) {
		if !isLoopback(c.Listen) {
			bad("TLS", "", "is missing, and Listen "+c.Listen+" is not on loopback")
		}
	} else if c.TLS.Cert == "" || c.TLS.Key == "" || c.TLS.CA == "" {
		bad("TLS", c.TLS, "lacks Cert, Key or CA")
	}
	fixed, _ := c.Peers.(Static)
	for name, address := range fixed {
		if why := c.badPeer(name, address); why != "" {
			bad("Peers", name+" "+address, why)
		}
	}
	if c.Silence != 0 && (c.Silence < 100*time.Millisecond || c.Silence > time.Minute) {
		bad("Silence", c.Silence, "is not between 100 ms and 1 min")
	}
	if c.Engine != nil {
		if err := c.Engine.Validate(c.Name); err != nil {
			bad("Engine", "", err.Error())
		}
	}
	if err := c.session("").validate(); err != nil && trunk.ValidName(c.Cluster) && trunk.ValidName(c.Name) {
		errs = append(errs, fmt.Errorf("hosts: config: %w", err))
	}
	return errors.Join(errs...)
}

// Pauses between two runs of a member that ends by itself.
const (
	firstMemberPause = 500 * time.Millisecond
	maxMemberPause   = 30 * time.Second
	memberWell       = time.Minute // a run of that length counts as good
)

// Member returns what runs this host's part of the engine; nil if it has none. Package runtime
// calls it.
func (c *Config) Member() func(ctx context.Context) error {
	m, ok := c.Engine.(MemberSpec)
	if !ok {
		return nil
	}
	run := m.Member(c.Name)
	if run == nil {
		return nil
	}
	return func(ctx context.Context) error {
		pause := firstMemberPause
		for ctx.Err() == nil {
			begun := time.Now()
			err := run(ctx)
			if ctx.Err() != nil {
				return err
			}
			if time.Since(begun) > memberWell {
				pause = firstMemberPause
			}
			c.log().Error("hosts: this host's member of the engine has ended", "err", err, "again in", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(2*pause, maxMemberPause)
		}
		return nil
	}
}

func (c *Config) log() *slog.Logger {
	if c.Logger == nil {
		return slog.Default()
	}
	return c.Logger
}

// isLoopback reports whether an address with a port is surely reached by this machine alone.
func isLoopback(address string) bool {
	a, err := netip.ParseAddrPort(address)
	return err == nil && a.Addr().IsLoopback()
}

// trunks returns the configuration of the trunks but for what the gateway does with them.
func (c *Config) trunks(boot string, incarnation uint64) trunk.Config {
	cfg := trunk.Config{
		Cluster: c.Cluster, Self: trunk.Host{Name: c.Name, Boot: boot, Incarnation: incarnation}, Silence: c.Silence, Dial: c.dial, LastWait: c.lastWait,
		MaxLanes: c.maxLanes,
	}
	if c.TLS != (TLS{}) {
		cfg.Files = &trunk.CertFiles{Cert: c.TLS.Cert, Key: c.TLS.Key, CA: c.TLS.CA}
	}
	return cfg
}
