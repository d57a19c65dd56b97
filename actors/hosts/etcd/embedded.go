package etcd

import (
	"context"
	"errors"
	"fmt"
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
	"google.golang.org/grpc"

	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/seats"
)

// Embedded is an etcd that runs on the hosts of the cluster, in a process of each that has a seat.
// Its members reach each other, and hosts without a seat reach it, through the trunks: it opens no
// port, and who has no certificate of the cluster has no way to it.
type Embedded struct {
	// Dir is where the state of this host's seat is, and the sockets of the engine; it is made with
	// mode 0700 if it is not there. It has to outlive the host's processes, and must not be given
	// to another host. A relative path begins at the working directory of the program.
	Dir string
	// Seats are the hosts that vote: 1, 3, 5 or 7 of them, the same on every host.
	Seats []string
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

// The services of a seat.
const (
	raftService   = "etcd raft"
	clientService = "etcd client"
)

// path returns the absolute path of a file of Dir.
func (x Embedded) path(name string) string {
	path, err := filepath.Abs(filepath.Join(x.Dir, name))
	if err != nil { // there is no working directory
		return filepath.Join("/", x.Dir, name)
	}
	return path
}

// peerSocket is the path of the URL of a seat (seats.PeerURL), which is the same on every host.
// What dials it takes the part behind the slashes for a path, from the member's working directory
// on: there the host's gateway listens, for all seats but its own. It has to look like a host with
// a port.
func (x Embedded) peerSocket(seat string) string {
	return x.path(strings.TrimPrefix(seats.PeerURL(seat), "unix://"))
}

// Validate does what hosts.EngineSpec says.
func (x Embedded) Validate(host string) error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("Embedded."+field+": "+format, args...))
	}
	if x.Dir == "" {
		bad("Dir", "none")
	}
	switch n := len(x.Seats); {
	case n == 2:
		bad("Seats", "two: when either fails there is no majority, which is worse than one; take one or three")
	case n%2 == 0 || n > 7:
		bad("Seats", "%d: take 1, 3, 5 or 7", n)
	}
	longest := x.path(seats.ClientSocket)
	for i, seat := range x.Seats {
		if seat == "" || strings.Trim(seat, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			bad("Seats", "%q cannot be the name of a host", seat)
		}
		if slices.Contains(x.Seats[:i], seat) {
			bad("Seats", "%q: twice", seat)
		}
		if socket := x.peerSocket(seat); len(socket) > len(longest) {
			longest = socket
		}
	}
	if len(longest) > maxSocketPath {
		bad("Dir", "%q is longer than a Unix socket allows: %d bytes", longest, maxSocketPath)
	}
	x.times()
	if x.Tick < time.Millisecond || x.Election < 5*x.Tick || x.Election > 50*x.Tick {
		bad("Election", "%v at a Tick of %v: 5 to 50 Ticks", x.Election, x.Tick)
	}
	switch x.Log {
	case "", "debug", "info", "warn", "error":
	default:
		bad("Log", "%q is none of debug, info, warn, error", x.Log)
	}
	return errors.Join(errs...)
}

// times fills in Tick, Election and Log.
func (x *Embedded) times() {
	if x.Tick == 0 {
		x.Tick = 50 * time.Millisecond
	}
	if x.Election == 0 {
		x.Election = 10 * x.Tick
	}
	if x.Log == "" {
		x.Log = "error"
	}
}

// Joints does what hosts.MemberSpec says.
func (x Embedded) Joints(host string) (ts []hosts.Tunnel, ss []hosts.TunnelService) {
	if !slices.Contains(x.Seats, host) {
		return []hosts.Tunnel{{Socket: x.path(seats.ClientSocket), Hosts: x.Seats, Service: clientService}}, nil
	}
	for _, seat := range x.Seats {
		if seat != host {
			ts = append(ts, hosts.Tunnel{Socket: x.peerSocket(seat), Hosts: []string{seat}, Service: raftService})
		}
	}
	return ts, []hosts.TunnelService{
		{Name: raftService, Socket: x.path("peer.sock"), Hosts: x.Seats}, // who has no seat has no vote
		{Name: clientService, Socket: x.path(seats.ClientSocket)},
	}
}

// Open does what hosts.EngineSpec says.
func (x Embedded) Open(host string) (hosts.Engine, error) {
	if err := x.Validate(host); err != nil {
		return nil, fmt.Errorf("hosts/etcd: %w", err)
	}
	return External{Endpoints: []string{"unix://" + x.path(seats.ClientSocket)}}.Open(host)
}

// Member does what hosts.MemberSpec says.
func (x Embedded) Member(host string) func(ctx context.Context) error {
	if !slices.Contains(x.Seats, host) {
		return nil
	}
	said := "" // the last error of prepare
	return func(ctx context.Context) error {
		x.Dir = x.path("") // before the working directory is another one
		if err := os.MkdirAll(x.Dir, 0o700); err != nil {
			return fmt.Errorf("hosts/etcd: Embedded.Dir: %w", err)
		}
		if err := os.Chdir(x.Dir); err != nil { // see peer
			return fmt.Errorf("hosts/etcd: Embedded.Dir: %w", err)
		}
		if err := os.Setenv("NO_PROXY", "*"); err != nil { // etcd would dial it in place of a peer
			return fmt.Errorf("hosts/etcd: %w", err)
		}
		for ctx.Err() == nil {
			how, err := x.prepare(ctx, host)
			switch {
			case err == nil:
				said = ""
			case err.Error() == said && x.changes(ctx, host, said):
				continue
			default:
				said = err.Error()
				return err
			}
			m, err := x.start(host, how)
			if err != nil {
				return err
			}
			if err := m.run(ctx); !errors.Is(err, errAgain) {
				return err
			}
		}
		return nil
	}
}

// changes waits for a while until prepare says something else than before: once said is enough.
func (x Embedded) changes(ctx context.Context, host, said string) bool {
	tick := time.NewTicker(seatPause)
	defer tick.Stop()
	for until := time.Now().Add(refusedWait); time.Now().Before(until); {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		if _, err := x.prepare(ctx, host); err == nil || err.Error() != said {
			return true
		}
	}
	return false
}

// member is a member that runs.
type member struct {
	x       Embedded
	host    string
	seat    seats.Seat
	etcd    *embed.Etcd
	clients *atomic.Pointer[grpc.Server] // nil until it serves
	closing *atomic.Bool
}

// run runs the member until ctx ends, or it ends by itself, which is an error, or it has to start
// anew: errAgain.
func (m *member) run(ctx context.Context) (err error) {
	tick := time.NewTicker(seatPause)
	defer tick.Stop()
	for err = error(nil); err == nil && ctx.Err() == nil; {
		select {
		case <-ctx.Done():
		case err = <-m.etcd.Err():
		case <-m.etcd.Server.StopNotify():
			err = errors.New("it has stopped by itself: it is no longer a seat, or its state cannot be used")
		case <-tick.C:
			if m.x.asked() || m.etcd.Server.Leader() == 0 && m.replaced(ctx) {
				err = errAgain
			}
		}
	}
	m.closing.Store(true)
	if clients := m.clients.Load(); clients != nil {
		clients.Stop() // else Close waits for their watches, longer than the tree waits for it
	}
	// It waits as long for another leader in its place, which there is not if the others end too.
	alone := time.AfterFunc(2*m.x.Election, m.etcd.Server.HardStop)
	m.etcd.Close()
	alone.Stop()
	if err != nil && m.replaced(ctx) {
		err = errAgain
	}
	if err != nil {
		return fmt.Errorf("hosts/etcd: the member of host %q: %w", m.host, err)
	}
	return nil
}

// replaced reports whether another member of this host is let in.
func (m *member) replaced(ctx context.Context) bool {
	_, yes := invited(m.host, m.seat, m.x.censuses(ctx, m.host))
	return yes
}

// start starts this host's member, which may have no majority yet.
func (x Embedded) start(host string, how *join) (*member, error) {
	if err := x.Validate(host); err != nil {
		return nil, fmt.Errorf("hosts/etcd: %w", err)
	}
	x.times()
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = host, x.Dir
	advertised, err := url.Parse(seats.PeerURL(host))
	if err != nil {
		return nil, fmt.Errorf("hosts/etcd: Embedded.Seats: %w", err)
	}
	// A listener takes the host of its URL for the path.
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{{Scheme: "unix", Host: x.path("peer.sock")}}, []url.URL{*advertised}
	local := url.URL{Scheme: "unix", Path: x.path(seats.ClientSocket)}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{local}, []url.URL{local}
	cfg.InitialCluster, cfg.InitialClusterToken = how.initial, "coppice"
	if how.existing {
		cfg.ClusterState = embed.ClusterStateFlagExisting
	}
	cfg.TickMs, cfg.ElectionMs = uint(x.Tick/time.Millisecond), uint(x.Election/time.Millisecond)
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = "revision", "10000"
	log, closing, err := logger(x.Log)
	if err != nil {
		return nil, fmt.Errorf("hosts/etcd: Embedded.Log: %w", err)
	}
	cfg.LogLevel, cfg.ZapLoggerBuilder = x.Log, embed.NewZapLoggerBuilder(log)
	cfg.UnsafeNoFsync = x.noSync
	clients := new(atomic.Pointer[grpc.Server])
	cfg.ServiceRegister = clients.Store
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("hosts/etcd: start the member of host %q in %s: %w", host, x.Dir, err)
	}
	m := &member{x: x, host: host, etcd: e, clients: clients, closing: closing}
	m.seat = seats.Seat{Host: host, Member: e.Server.MemberID().String(), Engine: e.Server.Cluster().ID().String(), Seats: x.Seats}
	if err := x.writeSeat(m.seat); err != nil {
		closing.Store(true)
		e.Close()
		return nil, fmt.Errorf("hosts/etcd: Embedded.Dir: %w", err)
	}
	return m, nil
}

// initial is etcd's initial-cluster: what a member of an empty directory takes for all members.
func (x *Embedded) initial() string {
	var list []string
	for _, seat := range slices.Sorted(slices.Values(x.Seats)) {
		list = append(list, seat+"="+seats.PeerURL(seat))
	}
	return strings.Join(list, ",")
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
	log, err := cfg.Build(
		zap.WrapCore(func(core zapcore.Core) zapcore.Core { return &quietCore{core, closing} }),
		zap.WithFatalHook(slowExit{}),
	)
	return log, closing, err
}

// slowExit ends the process for what etcd cannot go on with. It is started anew, and would say the
// same; hence the wait.
type slowExit struct{}

func (slowExit) OnWrite(*zapcore.CheckedEntry, []zapcore.Field) {
	time.Sleep(time.Second)
	os.Exit(1)
}

// quietCore is a core that logs nothing once closing is true, nor that a new engine has no entry
// yet that would tell of its version: it looks again.
type quietCore struct {
	zapcore.Core
	closing *atomic.Bool
}

func (c *quietCore) With(fields []zapcore.Field) zapcore.Core {
	return &quietCore{c.Core.With(fields), c.closing}
}

func (c *quietCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.closing.Load() || e.Message == "failed to update storage version" {
		return checked
	}
	return c.Core.Check(e, checked)
}
