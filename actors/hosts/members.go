package hosts

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts/internal/trunk"
	coppice "github.com/coppice-go/coppice/runtime"
)

// A HostState is how a host is reached from the one that is asked.
type HostState string

// The states of a host.
const (
	HostSelf        HostState = "self"        // the host that is asked
	HostUp          HostState = "up"          // there is a trunk to it
	HostUnreachable HostState = "unreachable" // there was a trunk
	HostNeverUp     HostState = "never up"    // since this gateway was started
)

// A HostInfo is what one host knows of another, or of itself, without asking it.
type HostInfo struct {
	Name    string    `json:"name"`
	Boot    string    `json:"boot,omitempty"`    // the latest that is known
	Address string    `json:"address,omitempty"` // in Config.Peers; "": it is no longer there
	State   HostState `json:"state"`
	// Since is when State began: of a host that was never up and of this one, when its gateway was
	// started.
	Since time.Time `json:"since"`
	Why   string    `json:"why,omitempty"` // there is no trunk, as far as it is known
	Seat  bool      `json:"seat,omitempty"`
	// Session is whether the gateway of the host has a session with the engine, and Names are how
	// many names of the cluster its processes hold: as the watch has shown them.
	Session bool `json:"session,omitempty"`
	Names   int  `json:"names,omitempty"`
	// Trunk is what the gateway has counted of its trunks to the host; nil: there was none.
	Trunk *TrunkInfo `json:"trunk,omitempty"`

	// Of a Snapshot: Tree is what the host has said of itself at Asked, the last time that it has
	// answered; nil: never since this program began. Silent is why it has not answered now.
	Tree   *TreeInfo `json:"tree,omitempty"`
	Asked  time.Time `json:"asked,omitzero"`
	Silent string    `json:"silent,omitempty"`
}

// Members is what one host knows of all.
type Members struct {
	Cluster string `json:"cluster"`
	Host    string `json:"host"` // that was asked
	// Engine is whether there is one; Unavailable is why its session is not live, "" if it is: then
	// Session and Names of the hosts are as they were last.
	Engine      bool       `json:"engine"`
	Unavailable string     `json:"unavailable,omitempty"`
	Hosts       []HostInfo `json:"hosts"` // by their names
}

// reporterName is the gateway's actor that says what the gateway knows, and gatewayName its
// process.
const (
	reporterName = "hosts"
	gatewayName  = "gateway/0"
)

// membersRequest asks a gateway's reporter for Members.
type membersRequest struct{}

func init() {
	actors.RegisterType[membersRequest]("coppice.hosts.members.request")
	actors.RegisterType[Members]("coppice.hosts.members")
}

// AskMembers returns what the gateway of this host knows of all hosts. Any process of a tree may
// ask. It asks no other host.
func AskMembers(ctx context.Context, s *actors.System) (Members, error) {
	m, err := actors.Ask[Members](ctx, s, s.Lookup(gatewayName+"/"+reporterName), membersRequest{})
	if err != nil {
		return m, fmt.Errorf("hosts: members: %w", err)
	}
	return m, nil
}

// hostStates are the states of the hosts, as a gateway hears of them.
type hostStates struct {
	mu        sync.Mutex
	begun     time.Time
	addresses map[string]string
	of        map[string]*HostInfo // that had a trunk, or whose last try has failed
}

func (h *hostStates) changeLocked(name string) *HostInfo {
	if h.of == nil {
		h.of = make(map[string]*HostInfo)
	}
	s := h.of[name]
	if s == nil {
		s = &HostInfo{Name: name, State: HostNeverUp, Since: h.begun}
		h.of[name] = s
	}
	return s
}

func (h *hostStates) up(peer trunk.Host) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.changeLocked(peer.Name)
	s.Boot, s.State, s.Since, s.Why = peer.Boot, HostUp, time.Now(), ""
}

func (h *hostStates) down(peer trunk.Host, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.changeLocked(peer.Name)
	s.State, s.Since, s.Why = HostUnreachable, time.Now(), err.Error()
}

// failed takes why a host has no trunk: one of the peers, as strangers say what they like. It
// reports whether it is one.
func (h *hostStates) failed(name string, err error) (peer bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.of[name]; h.addresses[name] != "" && (s == nil || s.State != HostUp) {
		h.changeLocked(name).Why = err.Error()
	}
	return h.addresses[name] != ""
}

func (h *hostStates) peers(addresses map[string]string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addresses = maps.Clone(addresses)
	for name := range h.of {
		if h.of[name].State != HostUp && addresses[name] == "" {
			delete(h.of, name)
		}
	}
}

// list returns all hosts but this one.
func (h *hostStates) list(but string) (all []HostInfo) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, s := range h.of {
		if name != but {
			all = append(all, *s)
		}
	}
	for name := range h.addresses {
		if name != but && h.of[name] == nil {
			all = append(all, HostInfo{Name: name, State: HostNeverUp, Since: h.begun})
		}
	}
	for i := range all {
		all[i].Address = h.addresses[all[i].Name]
	}
	return all
}

// spawnReporter begins the actor that says what a gateway knows. It never waits.
func (c *Config) spawnReporter(ctx context.Context, g *gateway, s *actors.System) error {
	g.states.mu.Lock()
	g.states.begun = time.Now()
	g.states.mu.Unlock()
	_, err := s.Spawn(ctx, reporterName, func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			if _, ok := ctx.Message().(membersRequest); ok {
				ctx.Respond(c.members(g))
			}
		})
	})
	return err
}

func (c *Config) members(g *gateway) Members {
	g.states.mu.Lock()
	self := HostInfo{Name: c.Name, Boot: g.boot, Address: c.Listen, State: HostSelf, Since: g.states.begun}
	g.states.mu.Unlock()
	m := Members{Cluster: c.Cluster, Host: c.Name, Engine: c.Engine != nil, Hosts: append(g.states.list(c.Name), self)}
	sessions, held := map[string]bool{}, map[string]int{}
	if d := g.registrar; d != nil {
		m.Unavailable = d.count(sessions, held)
	}
	seats, _ := c.Engine.(MemberSpec)
	for i := range m.Hosts {
		h := &m.Hosts[i]
		h.Seat = seats != nil && seats.Member(h.Name) != nil
		h.Trunk = g.figures.info(h.Name)
		h.Session, h.Names = sessions[h.Name], held[h.Name]
	}
	slices.SortFunc(m.Hosts, func(a, b HostInfo) int { return cmp.Compare(a.Name, b.Name) })
	return m
}

// count adds which hosts have a session and how many names their processes hold, as far as the
// watch has shown it, and returns why this host's own session is not live; "": it is.
func (d *registrar) count(sessions map[string]bool, held map[string]int) (unavailable string) {
	d.mu.Lock()
	names := d.names
	d.mu.Unlock()
	if names == nil {
		return ErrUnavailable.Error()
	}
	if s := names.Session(); !s.Live {
		unavailable = cmp.Or(s.Err, ErrUnavailable).Error()
	}
	names.view.mu.Lock()
	defer names.view.mu.Unlock()
	for key, e := range names.view.entries {
		if host, ok := strings.CutPrefix(key, names.root+"hosts/"); ok {
			sessions[host] = true
		} else if strings.HasPrefix(key, names.root+"names/") {
			var r holderValue
			if json.Unmarshal(e.Value, &r) == nil {
				held[r.Host]++
			}
		}
	}
	return unavailable
}

// Operate does what an operator asks of the control endpoint. Package runtime calls it.
func (c *Config) Operate(ctx context.Context, rt *coppice.Runtime, what string, values url.Values, say func(string)) (any, error) {
	switch what {
	case "": // changes nothing
		return Snapshot(ctx, rt.System())
	case "reload":
		r := Reload{Hosts: values["host"]}
		if s := values.Get("settle"); s != "" {
			var err error
			if r.Settle, err = time.ParseDuration(s); err != nil {
				return nil, fmt.Errorf("hosts: reload: settle: %w", err)
			}
		}
		return nil, c.Reload(ctx, r, say)
	}
	return nil, fmt.Errorf("hosts: %q: %w", what, coppice.ErrUnsupported)
}
