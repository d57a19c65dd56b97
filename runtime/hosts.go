package coppice

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/tracing"
)

// A Cluster joins the tree to trees on other hosts; *hosts.Config of module actors/hosts is one.
// Its methods run in the master and in its children alike, but for RunGateway.
type Cluster interface {
	// HostName returns the name of this host, the same as long as the tree runs.
	HostName() string

	// NewBoot returns what tells this start of the host from all others, of any host: 1 to 48
	// lower-case letters and digits. It is called once a start.
	NewBoot() string

	// Validate returns what is wrong with the configuration, joined.
	Validate() error

	// RunGateway carries messages to other hosts until ctx ends. It runs in a process of its own,
	// which runs no other code of the user, or where Config.ListenerIsolation says so in the
	// master. A later gateway of the tree has a higher incarnation, and may start while the earlier
	// one lives: Listen shares the socket. RunGateway calls Ready when it can be the gateway, and
	// is it from the call of its actors.Gateway's Begin on.
	RunGateway(ctx context.Context, g actors.GatewayProcess) error

	// Member returns what runs this host's part of what the hosts agree by, until ctx ends; nil if
	// it has none. It is called in a process of its own, which runs no other code of the user.
	Member() func(ctx context.Context) error

	// Begin is called in the master before its first child starts, once more in the program of an
	// upgrade.
	Begin(ctx context.Context, rt *Runtime) error

	// Operate does in the master what an operator asks of the control endpoint: GET /v1/hosts with
	// what empty, which is answered with the result as JSON and changes nothing, and POST
	// /v1/hosts/WHAT?VALUES, of which say tells the operator how it goes on, a line a call. An
	// error that wraps [ErrUnsupported] says that there is no such thing.
	Operate(ctx context.Context, rt *Runtime, what string, values url.Values, say func(string)) (any, error)
}

// gatewayProcess is a worker as a gateway.
type gatewayProcess struct{ *Worker }

func (g gatewayProcess) Incarnation() uint64 { return uint64(g.ID()) }

func (g gatewayProcess) Meter() *tracing.Meter { return g.c.Meter() }

func (g gatewayProcess) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return g.ListenSpec(ctx, ListenerSpec{Network: network, Address: address, Policy: netactor.Shared})
}

// hostPools returns the pools that a tree in a cluster has before its own children. That of the
// gateway is the first.
func hostPools(c Cluster, isolation Isolation) []ChildSpec {
	gateway := Pool{
		Name: childproto.GatewayName, Size: 1, Isolation: isolation, Intensity: listenerIntensity, Shutdown: listenerShutdown, ofHost: true,
		Worker: func(ctx context.Context, w *Worker) error { return c.RunGateway(ctx, gatewayProcess{w}) },
	}
	run := c.Member()
	if run == nil {
		return []ChildSpec{gateway}
	}
	return []ChildSpec{gateway, Pool{
		Name: childproto.MemberName, Size: 1, Intensity: memberIntensity, Shutdown: memberShutdown, ofHost: true,
		Worker: func(ctx context.Context, w *Worker) error {
			if err := w.Ready(); err != nil { // the others do not wait for an engine
				return err
			}
			return run(ctx)
		},
	}}
}

// hostOf returns the name of the host in a cluster; "" if there is none.
func hostOf(c Cluster) string {
	if c == nil {
		return ""
	}
	return c.HostName()
}

// operateHosts passes on to the cluster what an operator asks.
func (rt *Runtime) operateHosts(ctx context.Context, what string, r *http.Request) (any, error) {
	if rt.cfg.Hosts == nil {
		return nil, fmt.Errorf("coppice: the tree is on one host alone, without Config.Hosts: %w", ErrUnsupported)
	}
	_ = r.FormValue("") // parses
	return rt.cfg.Hosts.Operate(ctx, rt, what, r.Form, func(line string) {
		rt.events.Put(Event{Time: time.Now(), Kind: HostsOperated, Why: line})
	})
}
