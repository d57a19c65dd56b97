package hosts_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/hoststest"
	"github.com/coppice-go/coppice/actors/hosts/internal/trunk"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// patience bounds every wait.
const patience = time.Minute

var killed = supervisor.Reason{Kind: supervisor.Signaled, Signal: 9}

// A cluster is trees in one process, whose gateways have trunks over a Net.
type cluster struct {
	t       *testing.T
	net     *hoststest.Net
	silence time.Duration
	engines map[string]hosts.EngineSpec // by host
	leases  map[string]time.Duration    // by host; zero: an hour
	dirs    map[string]string           // by host; empty: none
	log     slog.Handler                // of gateways; nil: none
	edit    func(c *hosts.Config)       // of gateways; nil: none

	mu    sync.Mutex
	hosts map[string]*tree
}

// newCluster starts hosts. A trunk is lost after silence: where that is not to be, a minute, which
// no load makes of a host.
func newCluster(t *testing.T, silence time.Duration, names ...string) *cluster {
	c := newNetwork(t, silence)
	for _, name := range names {
		c.start(name, "boot"+name)
	}
	return c
}

// at is the address of a host with a name of one letter, which is the port.
func at(host string) string { return fmt.Sprint("127.0.0.1:", host[0]) }

// newNetwork returns a cluster without hosts.
func newNetwork(t *testing.T, silence time.Duration) *cluster {
	return &cluster{t: t, net: hoststest.NewNet(1), silence: silence, hosts: map[string]*tree{}}
}

// intruder starts a host that is a mesh alone, and returns its trunk to another.
func (c *cluster) intruder(name, to string, open func(l *trunk.Lane, info []byte)) *trunk.Trunk {
	up := make(chan *trunk.Trunk, 16)
	m, err := trunk.New(trunk.Config{
		Cluster: "shop", Self: trunk.Host{Name: name, Boot: "boot" + name, Incarnation: 1}, Silence: c.silence, Open: open,
		Dial: func(ctx context.Context, address string) (net.Conn, error) { return c.net.Dial(ctx, name, address) },
		Up:   func(t *trunk.Trunk) { up <- t },
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { m.Close() })
	m.SetPeers(map[string]string{to: to})
	return next(c.t, "a trunk", up)
}

// tree is a host: a master, a gateway and children, joined as package runtime joins processes.
type tree struct {
	c          *cluster
	name, boot string
	master     *actors.System
	meter      *tracing.Meter

	mu      sync.Mutex
	last    int
	gateway *child
	mesh    *trunk.Mesh // of the gateway
}

// child is a process of a tree.
type child struct {
	*actors.System
	conn   *fdipc.Conn
	end    context.CancelFunc // of a gateway
	gone   chan struct{}
	mu     sync.Mutex
	reason supervisor.Reason
}

func (c *cluster) system(cfg actors.Config) *actors.System {
	cfg.Logger = slog.New(slog.DiscardHandler)
	s, err := actors.NewSystem(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = s.Shutdown(ctx)
	})
	return s
}

// start starts a host with a gateway.
func (c *cluster) start(name, boot string) *tree {
	tr := &tree{c: c, name: name, boot: boot, meter: tracing.NewMeter()}
	tr.master = c.system(actors.Config{Address: boot + ".0", Host: name})
	c.mu.Lock()
	c.hosts[name] = tr
	c.mu.Unlock()
	tr.startGateway()
	return tr
}

// child starts a process. One without a host does not know that it is in a cluster.
func (tr *tree) child(host string) *child {
	t := tr.c.t
	tr.mu.Lock()
	tr.last++
	address, incarnation := fmt.Sprint(tr.boot, ".", tr.last), uint64(tr.last)
	tr.mu.Unlock()
	p := &child{System: tr.c.system(actors.Config{Address: address, Host: host, Incarnation: incarnation}), gone: make(chan struct{})}
	near, far, err := fdipc.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{}, 2)
	up, err := fdipc.New(near, fdipc.Config{
		Ready: func(c *fdipc.Conn) {
			if err := tr.master.Attach(address, incarnation, c); err != nil {
				t.Error(err)
			}
			ready <- struct{}{}
		},
		Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { tr.master.HandleFrame(address, f) },
		Closed: func(*fdipc.Conn, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			tr.master.Detach(address, p.reason)
			close(p.gone)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.conn, err = fdipc.New(far, fdipc.Config{
		Ready: func(c *fdipc.Conn) {
			if err := p.Attach(tr.boot+".0", 0, c); err != nil {
				t.Error(err)
			}
			p.Uplink(tr.boot + ".0")
			ready <- struct{}{}
		},
		Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { p.HandleFrame(tr.boot+".0", f) },
		Closed:  func(*fdipc.Conn, error) { p.Detach(tr.boot+".0", supervisor.Reason{Kind: supervisor.Killed}) },
	})
	if err != nil {
		t.Fatal(err)
	}
	<-ready
	<-ready
	t.Cleanup(func() { p.kill(supervisor.Reason{Kind: supervisor.Shutdown}); _ = up.Close() })
	return p
}

// kill ends a process as its master sees it.
func (p *child) kill(why supervisor.Reason) {
	p.mu.Lock()
	p.reason = why
	p.mu.Unlock()
	if p.end != nil {
		p.end()
	}
	_ = p.conn.Close()
	<-p.gone
}

// process is the GatewayProcess of a child.
type process struct {
	*child
	tr *tree
	n  uint64
}

func (p process) System() *actors.System { return p.child.System }
func (p process) Incarnation() uint64    { return p.n }
func (p process) Meter() *tracing.Meter  { return p.tr.meter }
func (p process) Ready() error {
	p.tr.master.SetGateway(p.Address())
	return p.tr.master.Reregister(context.Background(), "gateway/0", actors.ProcessPID(p.Address()))
}

func (p process) Listen(context.Context, string, string) (net.Listener, error) {
	return p.tr.c.net.Listen(p.tr.name), nil
}

func (c *cluster) config(host string) *hosts.Config {
	cfg := &hosts.Config{
		Cluster: "shop", Name: host, Listen: host + ":1", Peers: hosts.Static{"a": at("a"), "b": at("b"), "c": at("c")}, Silence: c.silence,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Engine: c.engines[host], Lease: cmp.Or(c.leases[host], hosts.MaxLease), Dir: c.dirs[host],
	}
	cfg.SetDial(func(ctx context.Context, address string) (net.Conn, error) {
		port, _ := netip.ParseAddrPort(address)
		return c.net.Dial(ctx, host, string(rune(port.Port())))
	})
	return cfg
}

func (tr *tree) startGateway() {
	p := tr.child(tr.name)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	p.end = func() { cancel(); <-ended }
	tr.gateway = p
	cfg := tr.c.config(tr.name)
	cfg.SetLastWait(patience)
	if tr.c.log != nil {
		cfg.Logger = slog.New(tr.c.log)
	}
	if tr.c.edit != nil {
		tr.c.edit(cfg)
	}
	cfg.OnMesh(func(m *trunk.Mesh) {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.mesh = m
	})
	tr.mu.Lock()
	n := uint64(tr.last)
	tr.mu.Unlock()
	go func() {
		defer close(ended)
		if err := cfg.RunGateway(ctx, process{p, tr, n}); err != nil {
			tr.c.t.Error(err)
		}
	}()
}

// stats returns the figures of the trunk to another host; zero while there is none.
func (tr *tree) stats(host string) trunk.Stats {
	tr.mu.Lock()
	mesh := tr.mesh
	tr.mu.Unlock()
	if mesh != nil {
		if t := mesh.Trunk(host); t != nil {
			return t.Stats()
		}
	}
	return trunk.Stats{}
}

// until waits until f holds.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !f(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain: ", what)
		}
	}
}

func next[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("waited in vain: ", what)
	}
	return v
}

func spawn(t *testing.T, s *actors.System, name string, receive func(actor.Context)) *actor.PID {
	t.Helper()
	pid, err := s.Spawn(t.Context(), name, func() actor.Actor {
		return actor.ReceiveFunc(func(c actor.Context) {
			switch c.Message().(type) {
			case actor.SystemMessage, actor.AutoReceiveMessage, *actor.Started, *actor.Stopping, *actor.Stopped:
			default:
				receive(c)
			}
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func echo(c actor.Context) {
	if c.Message() != "hold" {
		c.Respond(c.Message())
	}
}

// answers waits until an actor answers.
func answers(t *testing.T, from *actors.System, pid *actor.PID) {
	t.Helper()
	until(t, from.Address()+" has no answer of "+pid.String(), func() bool {
		v, err := from.Ask(t.Context(), pid, "x")
		return err == nil && v == "x"
	})
}

// held asks for what is not answered, and returns the end of the ask when the actor has it.
func held(t *testing.T, from *actors.System, pid *actor.PID) <-chan error {
	t.Helper()
	end := make(chan error, 1)
	go func() {
		_, err := from.Ask(t.Context(), pid, "hold")
		end <- err
	}()
	return end
}
