package hosts

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
)

// TreeInfo is what a host says of its own tree, in short.
type TreeInfo struct {
	State      string     `json:"state"`
	Generation int        `json:"generation"`        // of the newest worker
	Program    string     `json:"program,omitempty"` // module and version, and the revision of its source
	Pools      []PoolInfo `json:"pools"`
	// Reaches are the hosts to which it has a trunk: two that do not reach each other are seen
	// here.
	Reaches []string `json:"reaches"`
}

// PoolInfo is a pool of a host, that of its gateway and of its member included.
type PoolInfo struct {
	Path        string `json:"path"`
	Workers     int    `json:"workers"`
	Ready       int    `json:"ready"`            // of Workers, those that run
	Failed      int    `json:"failed,omitempty"` // of Workers, those that are down or restarting
	Generations []int  `json:"generations"`      // of Workers
	// Restarts are those within the period of the pool's budget, and Budget how many it allows.
	Restarts int `json:"restarts,omitempty"`
	Budget   int `json:"budget,omitempty"`
}

// operatorName is the master's actor by which hosts ask each other.
const operatorName = "hosts"

// snapshotWait is how long a host may take to say how its tree is.
const snapshotWait = time.Second

// maxAnswers is how many questions of other processes the master answers at once.
const maxAnswers = 64

type (
	treeInfoRequest struct{} // asks a master for its TreeInfo
	snapshotRequest struct{} // asks a master for the Members of a Snapshot
)

func init() {
	actors.RegisterType[treeInfoRequest]("coppice.hosts.tree.request")
	actors.RegisterType[TreeInfo]("coppice.hosts.tree")
	actors.RegisterType[snapshotRequest]("coppice.hosts.snapshot.request")
}

// Snapshot returns what this host knows of all, with what each host that it reaches says of its
// tree. Hosts are asked at the same time, over the lanes, each for a second at most; of one that
// does not answer it has what it has said last. Any process of a tree may ask: its master does it.
func Snapshot(ctx context.Context, s *actors.System) (Members, error) {
	m, err := actors.Ask[Members](ctx, s, s.Lookup(masterName+"/"+operatorName), snapshotRequest{})
	if err != nil {
		return m, fmt.Errorf("hosts: snapshot: %w", err)
	}
	return m, nil
}

const masterName = "master"

// operator is the actor of a master. What waits has goroutines of its own.
type operator struct {
	cfg     *Config
	rt      *coppice.Runtime
	system  *actors.System
	answers chan struct{} // has room for those that are under way

	mu   sync.Mutex
	last map[string]HostInfo // of each host, the last that has answered

	nonces map[string]struct{} // of its orders that are not answered
	turn   *turn               // the reload of several hosts that this one takes part in; nil: none
}

// Begin starts the master's actor. Package runtime calls it.
func (c *Config) Begin(ctx context.Context, rt *coppice.Runtime) error {
	o := &operator{cfg: c, rt: rt, system: rt.System(), answers: make(chan struct{}, maxAnswers), last: make(map[string]HostInfo), nonces: make(map[string]struct{})}
	operating.Store(o)
	_, err := o.system.Spawn(ctx, operatorName, func() actor.Actor { return actor.ReceiveFunc(o.receive) })
	return err
}

// operating is the operator of this process, if it is a master: the latest.
var operating atomic.Pointer[operator]

func (o *operator) receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case hostOrder:
		o.ordered(ctx, m)
	case hostConfirm:
		o.mu.Lock()
		_, mine := o.nonces[m.Nonce]
		o.mu.Unlock()
		ctx.Respond(mine)
	case treeInfoRequest:
		o.answer(ctx, func(ctx context.Context) (any, error) { return o.tree(ctx), nil })
	case snapshotRequest:
		o.answer(ctx, func(ctx context.Context) (any, error) { return o.snapshot(ctx) })
	}
}

// answer answers what waits. What cannot be answered is not: the asker waits no longer than it
// wants to.
func (o *operator) answer(c actor.Context, do func(ctx context.Context) (any, error)) {
	asker := c.Sender()
	if asker == nil {
		return
	}
	ctx := actors.Context(c)
	select {
	case o.answers <- struct{}{}:
	default:
		return
	}
	go func() { // ends within two times snapshotWait
		defer func() { <-o.answers }()
		ctx, cancel := context.WithTimeout(ctx, 2*snapshotWait)
		defer cancel()
		a, err := do(ctx)
		if err != nil {
			o.cfg.log().Warn("hosts: a question is not answered", "asker", asker.Address, "err", err)
			return
		}
		_ = o.system.Send(ctx, asker, a)
	}()
}

// tree says how the tree of this host is.
func (o *operator) tree(ctx context.Context) TreeInfo {
	all := o.rt.Snapshot()
	t := TreeInfo{State: string(all.State), Program: program(), Pools: []PoolInfo{}, Reaches: []string{}}
	t.addPools("", all)
	ctx, cancel := context.WithTimeout(ctx, snapshotWait/2)
	defer cancel()
	if m, err := AskMembers(ctx, o.system); err == nil {
		for _, h := range m.Hosts {
			if h.State == HostUp {
				t.Reaches = append(t.Reaches, h.Name)
			}
		}
	}
	return t
}

func (t *TreeInfo) addPools(path string, n coppice.Tree) {
	for _, c := range n.Children {
		at := c.Name
		if path != "" {
			at = path + "/" + c.Name
		}
		if c.Role != coppice.RolePool {
			t.addPools(at, c)
			continue
		}
		p := PoolInfo{Path: at, Restarts: c.Used, Budget: c.Budget, Generations: []int{}}
		for _, w := range c.Children {
			p.Workers++
			switch w.State {
			case coppice.StateRunning:
				p.Ready++
			case coppice.StateDown, coppice.StateRestarting:
				p.Failed++
			default:
			}
			if w.Generation != 0 && !slices.Contains(p.Generations, w.Generation) {
				p.Generations = append(p.Generations, w.Generation)
			}
			t.Generation = max(t.Generation, w.Generation)
		}
		slices.Sort(p.Generations)
		t.Pools = append(t.Pools, p)
	}
}

// program says which program runs.
var program = sync.OnceValue(func() string {
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	s := b.Main.Path + " " + b.Main.Version
	for _, v := range b.Settings {
		if v.Key == "vcs.revision" {
			s += " " + v.Value
		}
	}
	return s
})

// snapshot asks all hosts that are reached.
func (o *operator) snapshot(ctx context.Context) (Members, error) {
	m, err := AskMembers(ctx, o.system)
	if err != nil {
		return m, err
	}
	var all sync.WaitGroup
	for i := range m.Hosts {
		all.Go(func() { o.ask(ctx, &m.Hosts[i]) })
	}
	all.Wait()
	return m, nil
}

// ask adds to a host what it says of its tree, or has said last.
func (o *operator) ask(ctx context.Context, h *HostInfo) {
	ctx, cancel := context.WithTimeoutCause(ctx, snapshotWait, errNoAnswer)
	defer cancel()
	var t TreeInfo
	err := errNoTrunk
	switch h.State {
	case HostSelf:
		t, err = o.tree(ctx), nil
	case HostUp:
		t, err = actors.Ask[TreeInfo](ctx, o.system, o.system.LookupAt(h.Name, masterName+"/"+operatorName), treeInfoRequest{})
	default:
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		h.Tree, h.Asked = &t, time.Now()
		o.last[h.Name] = *h
		return
	}
	if h.Silent = err.Error(); errors.Is(err, context.DeadlineExceeded) {
		h.Silent = errNoAnswer.Error()
	}
	if last, ok := o.last[h.Name]; ok && (h.Boot == "" || last.Boot == h.Boot) {
		h.Tree, h.Asked = last.Tree, last.Asked
	}
}

var errNoTrunk = errors.New("there is no trunk to it")
