package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/coppice-go/coppice/actors/hosts"
)

// Embedded is an etcd that runs in the programs of the cluster: this process is a member of it.
type Embedded struct {
	// Dir is where this seat's state is, this process's alone; it is made with mode 0700 if it is
	// not there. It has to outlive the process, and must not be given to another seat.
	Dir string
	// Seats are the hosts that vote, with the URL by which the others reach each: an odd number of
	// them, the same on every host. https needs TLS; http is for loopback addresses only;
	// unix://name:80 is the socket "name:80" in the working directory.
	Seats map[string]string
	TLS   hosts.TLS // between the seats: both sides are verified
	// Tick and Election are etcd's heartbeat and election timeout. Zero: 50 ms and 500 ms, for
	// hosts whose round trip is below 50 ms; an Election is 5 to 50 Ticks.
	Tick, Election time.Duration
	// Log is the least level that etcd logs to stderr: "debug", "info", "warn", "error"; "":
	// "error".
	Log string

	noSync bool // for tests
}

// maxSocketPath is the longest path of a Unix socket: sun_path of unix(7), with the zero at its
// end.
const maxSocketPath = 107

func (x *Embedded) validate(host string) error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("Embedded."+field+": "+format, args...))
	}
	if x.Dir == "" {
		bad("Dir", "none")
	}
	switch n := len(x.Seats); {
	case x.Seats[host] == "":
		bad("Seats", "host %q is none of %q", host, slices.Sorted(maps.Keys(x.Seats)))
	case n == 2:
		bad("Seats", "two: when either fails there is no majority, which is worse than one; take one or three")
	case n%2 == 0 || n > 7:
		bad("Seats", "%d: take 1, 3, 5 or 7", n)
	}
	if err := validate(x.TLS, "Embedded.TLS"); err != nil {
		errs = append(errs, err)
	}
	secure := x.TLS.Cert != "" && x.TLS.CA != ""
	for _, seat := range slices.Sorted(maps.Keys(x.Seats)) {
		at := x.Seats[seat]
		u, err := url.Parse(at)
		if err != nil {
			bad("Seats", "%q: %w", seat, err)
			continue
		}
		switch ip := net.ParseIP(u.Hostname()); {
		case u.Port() == "":
			bad("Seats", "%q: %q has no port", seat, at)
		case u.Scheme == "https" && !secure:
			bad("Seats", "%q: %q needs TLS: Cert, Key and CA", seat, at)
		case u.Scheme == "http" && (ip == nil || !ip.IsLoopback()):
			bad("Seats", "%q: %q: anybody could join; take https, or a loopback address", seat, at)
		case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "unix":
			bad("Seats", "%q: %q is none of http, https, unix", seat, at)
		case strings.ContainsAny(seat, "=,"):
			bad("Seats", "%q: a name without = and ,", seat)
		}
	}
	if x.Tick == 0 {
		x.Tick = 50 * time.Millisecond
	}
	if x.Election == 0 {
		x.Election = 10 * x.Tick
	}
	if x.Tick < time.Millisecond || x.Election < 5*x.Tick || x.Election > 50*x.Tick {
		bad("Election", "%v at a Tick of %v: 5 to 50 Ticks", x.Election, x.Tick)
	}
	switch x.Log {
	case "":
		x.Log = "error"
	case "debug", "info", "warn", "error":
	default:
		bad("Log", "%q is none of debug, info, warn, error", x.Log)
	}
	return errors.Join(errs...)
}

// Open starts this host's member. It returns when the member listens, though it may have no
// majority yet; its first calls then wait. ctx is looked at before the start only. The engine's
// Close ends the member.
func (x Embedded) Open(ctx context.Context, host string) (hosts.Engine, error) {
	if err := x.validate(host); err != nil {
		return nil, fmt.Errorf("hosts/etcd: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("hosts/etcd: %w", context.Cause(ctx))
	}
	dir, err := filepath.Abs(x.Dir)
	if err != nil {
		return nil, fmt.Errorf("hosts/etcd: Embedded.Dir: %w", err)
	}
	socket := filepath.Join(dir, "client.sock")
	if len(socket) > maxSocketPath {
		return nil, fmt.Errorf("hosts/etcd: Embedded.Dir: %q is longer than a Unix socket allows: %d bytes", socket, maxSocketPath)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("hosts/etcd: Embedded.Dir: %w", err)
	}
	peer, err := url.Parse(x.Seats[host])
	if err != nil {
		return nil, fmt.Errorf("hosts/etcd: Embedded.Seats: %w", err)
	}
	local := url.URL{Scheme: "unix", Path: socket}

	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = host, dir
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{local}, []url.URL{local}
	cfg.InitialCluster, cfg.InitialClusterToken = x.initial(), "coppice"
	cfg.TickMs, cfg.ElectionMs = uint(x.Tick/time.Millisecond), uint(x.Election/time.Millisecond)
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = "revision", "10000"
	log, closing, err := logger(x.Log)
	if err != nil {
		return nil, fmt.Errorf("hosts/etcd: Embedded.Log: %w", err)
	}
	cfg.LogLevel, cfg.ZapLoggerBuilder = x.Log, embed.NewZapLoggerBuilder(log)
	cfg.UnsafeNoFsync = x.noSync
	if peer.Scheme == "https" {
		cfg.PeerTLSInfo = info(x.TLS)
		cfg.PeerTLSInfo.ClientCertAuth = true
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("hosts/etcd: start the member of host %q in %s: %w", host, dir, err)
	}
	engine, err := External{Endpoints: []string{local.String()}}.Open(ctx, host)
	if err != nil {
		e.Close()
		return nil, err
	}
	c := engine.(*client)
	failed := make(chan error, 1)
	go func() { // ends when the member does, by Close or by itself
		var last error
		for err := range e.Err() {
			last = errors.Join(last, err)
		}
		failed <- last
	}()
	c.member = func() error {
		closing.Store(true)
		e.Close() // closes Err
		if err := <-failed; err != nil {
			return fmt.Errorf("hosts/etcd: the member of host %q: %w", host, err)
		}
		return nil
	}
	return c, nil
}

// initial is etcd's initial-cluster: what a member of an empty directory takes for all members.
func (x *Embedded) initial() string {
	var seats []string
	for _, seat := range slices.Sorted(maps.Keys(x.Seats)) {
		seats = append(seats, seat+"="+x.Seats[seat])
	}
	return strings.Join(seats, ",")
}

// logger returns what etcd logs by, as JSON on stderr, and what silences it: etcd tells of the
// listeners that Close closes as errors.
func logger(level string) (*zap.Logger, *atomic.Bool, error) {
	cfg := zap.NewProductionConfig()
	var err error
	if cfg.Level, err = zap.ParseAtomicLevel(level); err != nil {
		return nil, nil, err
	}
	closing := new(atomic.Bool)
	log, err := cfg.Build(zap.WrapCore(func(core zapcore.Core) zapcore.Core { return &quietCore{core, closing} }))
	return log, closing, err
}

// quietCore is a core that logs nothing once closing is true.
type quietCore struct {
	zapcore.Core
	closing *atomic.Bool
}

func (c *quietCore) With(fields []zapcore.Field) zapcore.Core {
	return &quietCore{c.Core.With(fields), c.closing}
}

func (c *quietCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.closing.Load() {
		return checked
	}
	return c.Core.Check(e, checked)
}
