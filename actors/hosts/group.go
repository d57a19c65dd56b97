package hosts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts/internal/group"
)

// A Group is actors on all hosts among which keys are spread, for caches and copies: each key has
// one of the members, by rendezvous hashing, and only the keys of a member that goes move.
//
//	g, err := hosts.NewGroup(ctx, w.System(), "cache")        // in any process of any host
//	pid, err := w.System().Spawn(ctx, "cache", newCache)
//	err = g.Join(ctx, w.Name(), pid)                          // a member, until it ends
//	pid, err = g.Pick("user:42")                              // whose the key is
//	v, err := actors.Ask[string](ctx, w.System(), pid, get{"user:42"})
//
// There is no owner, and no engine is needed: each host sees the members of the hosts that it
// reaches. Hosts that see different members pick different ones for a key, for milliseconds when a
// member comes or goes, for as long as it lasts when two do not reach each other. What must have
// one owner has a name of the cluster.
//
// Its methods may be called concurrently.
type Group struct {
	name   string
	client *groupClient
	now    *atomic.Pointer[groupView]
}

// groupView is the members of a group at one moment.
type groupView struct {
	members []*groupMember
	changed chan struct{} // closed when there is another one
}

// A groupMember is one that a list has named.
type groupMember struct {
	hash  group.Hashed
	key   string // host/name
	pid   *actor.PID
	watch sync.Once
	ended atomic.Bool // its Down has come to this process
}

// A groupClient keeps a copy of the gateway's directory in a process.
type groupClient struct {
	system *actors.System
	over   chan struct{} // closed with the system
	saying sync.Mutex    // held while a member is said to leave, or to be in again
	err    error         // why; read after over

	mu     sync.Mutex
	known  groupPoll     // the directory and the version that the copy is of; zero: none yet
	told   chan struct{} // closed when it has another one
	first  chan struct{}
	joined []groupJoin
	lists  map[string]map[string][]*groupMember // by group and host
	groups map[string]*atomic.Pointer[groupView]
}

// clients are those of the processes, by their systems: more than one where workers are goroutines.
var clients = struct {
	sync.Mutex
	of map[*actors.System]*groupClient
}{of: make(map[*actors.System]*groupClient)}

// NewGroup returns the group of a name as this process sees it, when the gateway has told of it,
// which it does from then on. Every process of a host can have it, and the master. Errors: that of
// ctx, with why the gateway does not tell: in a tree without Config.Hosts there is none;
// actors.ErrName.
func NewGroup(ctx context.Context, s *actors.System, name string) (*Group, error) {
	if err := CheckName(name); err != nil {
		return nil, fmt.Errorf("hosts: group: %w", err)
	}
	clients.Lock()
	c := clients.of[s]
	if c == nil {
		c = &groupClient{
			system: s, over: make(chan struct{}), told: make(chan struct{}), first: make(chan struct{}),
			lists: make(map[string]map[string][]*groupMember), groups: make(map[string]*atomic.Pointer[groupView]),
		}
		clients.of[s] = c
		go c.follow() // ends with the system
	}
	clients.Unlock()
	c.mu.Lock()
	now := c.groups[name]
	if now == nil {
		now = new(atomic.Pointer[groupView])
		c.groups[name] = now
		c.renewLocked(name)
	}
	c.mu.Unlock()
	select {
	case <-c.first:
		return &Group{name, c, now}, nil
	case <-c.over:
		return nil, fmt.Errorf("hosts: group %q: %w", name, c.err)
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		return nil, fmt.Errorf("hosts: group %q: %w: %w", name, context.Cause(ctx), errors.Join(c.err))
	}
}

// follow keeps the copy until the system has ended. While there is no gateway it stays as it is:
// members of other hosts are not reached then, and fail.
func (c *groupClient) follow() {
	ctx := context.Background()
	var last groupPoll
	for pause := pollPause / 20; ; {
		a, err := actors.Ask[groupLists](ctx, c.system, c.directory(), last)
		if _, closed := c.system.Whereis(ctx, gatewayName); err != nil && errors.Is(closed, actors.ErrClosed) {
			c.mu.Lock()
			c.err = err
			c.mu.Unlock()
			clients.Lock()
			delete(clients.of, c.system)
			clients.Unlock()
			close(c.over)
			return
		}
		if err != nil {
			c.mu.Lock()
			c.err = err
			c.mu.Unlock()
			time.Sleep(pause)
			pause = min(2*pause, pollPause)
			continue
		}
		pause = pollPause / 20
		join := c.apply(a)
		last = c.known           // only this goroutine changes it
		for _, j := range join { // another gateway does not know them
			c.joinAgain(ctx, j)
		}
	}
}

// joinAgain joins a member of this process that has not left. If the gateway has ended too, there
// is another one, for which it is called.
func (c *groupClient) joinAgain(ctx context.Context, j groupJoin) {
	c.saying.Lock()
	defer c.saying.Unlock()
	c.mu.Lock()
	there := slices.Contains(c.joined, j)
	c.mu.Unlock()
	if there {
		_, _ = c.system.Ask(ctx, c.directory(), j)
	}
}

func (c *groupClient) directory() *actor.PID {
	return c.system.Lookup(gatewayName + "/" + directoryName)
}

// apply enters what the gateway has told, and returns the members of this process that it does not
// know.
func (c *groupClient) apply(a groupLists) (join []groupJoin) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := make(map[string]bool)
	if a.All {
		for name := range c.lists {
			changed[name] = true
		}
		clear(c.lists)
	}
	for _, l := range a.Lists {
		changed[l.Group] = true
		of := c.lists[l.Group]
		if of == nil {
			of = make(map[string][]*groupMember)
			c.lists[l.Group] = of
		}
		delete(of, l.Host)
		for _, m := range l.Members { // all anew: of one whose Down has come it says that it lives
			of[l.Host] = append(of[l.Host], &groupMember{hash: group.HashMember(l.Host, m.Name), key: l.Host + "/" + m.Name, pid: actor.NewPID(m.Address, m.ID)})
		}
		if len(of) == 0 {
			delete(c.lists, l.Group)
		}
	}
	for name := range changed {
		if c.groups[name] != nil {
			c.renewLocked(name)
		}
	}
	if c.known.Directory == "" {
		close(c.first)
	}
	if c.known.Directory != a.Directory {
		join = slices.Clone(c.joined)
	}
	c.known = groupPoll{Directory: a.Directory, After: a.Version}
	close(c.told)
	c.told = make(chan struct{})
	return join
}

// renewLocked makes the view of a group.
func (c *groupClient) renewLocked(name string) {
	v := &groupView{changed: make(chan struct{})}
	for _, members := range c.lists[name] {
		v.members = append(v.members, members...)
	}
	slices.SortFunc(v.members, func(a, b *groupMember) int { return strings.Compare(a.key, b.key) })
	if old := c.groups[name].Swap(v); old != nil {
		close(old.changed)
	}
}

// Join makes an actor of this process a member, until it ends or leaves, and returns when this
// process sees it; others hear of it in some milliseconds. member is its name among those of the
// host, best that of its slot (Worker.Name): its keys are those of the host and this name, so who
// comes later with the same name on the same host, a worker of the next generation, has its keys in
// its place. Errors: that of ctx; actors.ErrName, actors.ErrTooMany, ErrNoActor if pid is none of
// this process.
func (g *Group) Join(ctx context.Context, member string, pid *actor.PID) error {
	if err := CheckName(member); err != nil {
		return fmt.Errorf("hosts: join %q: %w", g.name, err)
	}
	if pid == nil || pid.Address != g.client.system.Address() {
		return fmt.Errorf("hosts: join %q: %v is no actor of this process: %w", g.name, pid, actors.ErrNoActor)
	}
	c, j := g.client, groupJoin{g.name, group.Member{Name: member, Address: pid.Address, ID: pid.Id}}
	c.mu.Lock()
	c.joined = append(slices.DeleteFunc(c.joined, func(o groupJoin) bool { return o == j }), j)
	c.mu.Unlock()
	m := c.system.Monitor(pid)
	go func() { // ends with the actor, or the system
		<-m.C
		c.forget(j)
	}()
	done, err := c.say(ctx, j)
	if err == nil {
		err = c.await(ctx, done)
	}
	if err != nil {
		c.forget(j)
		m.Cancel()
		return fmt.Errorf("hosts: join %q: %w", g.name, err)
	}
	return nil
}

func (c *groupClient) forget(j groupJoin) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.joined = slices.DeleteFunc(c.joined, func(o groupJoin) bool { return o == j })
}

// say tells the gateway something until it has answered, or ctx ends.
func (c *groupClient) say(ctx context.Context, msg any) (groupDone, error) {
	for pause := pollPause / 20; ; pause = min(2*pause, pollPause) {
		a, err := actors.Ask[groupDone](ctx, c.system, c.directory(), msg)
		switch {
		case err == nil && a.Err == actors.ErrTooMany.Error():
			return a, actors.ErrTooMany
		case err == nil && a.Err != "":
			return a, errors.New(a.Err)
		case err == nil, errors.Is(err, actors.ErrClosed):
			return a, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return a, err
		}
	}
}

// await waits until the copy has what the gateway has answered, or is that of another one.
func (c *groupClient) await(ctx context.Context, a groupDone) error {
	for {
		c.mu.Lock()
		known, told := c.known, c.told
		c.mu.Unlock()
		if known.Directory != a.Directory && known.Directory != "" || known.After >= a.Version {
			return nil
		}
		select {
		case <-told:
		case <-c.over:
			return c.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Leave takes an actor of this process out of the group, and returns when this process sees it. One
// that is not in it is no error.
func (g *Group) Leave(ctx context.Context, pid *actor.PID) error {
	c := g.client
	c.saying.Lock()
	c.mu.Lock()
	c.joined = slices.DeleteFunc(c.joined, func(o groupJoin) bool {
		return o.Group == g.name && o.Member.Address == pid.GetAddress() && o.Member.ID == pid.GetId()
	})
	c.mu.Unlock()
	done, err := c.say(ctx, groupLeave{g.name, group.Member{Address: pid.GetAddress(), ID: pid.GetId()}})
	c.saying.Unlock() // the copy, which await waits for, may say something first
	if err == nil {
		err = c.await(ctx, done)
	}
	if err != nil {
		return fmt.Errorf("hosts: leave %q: %w", g.name, err)
	}
	return nil
}

// Pick returns the member that has a key, the same in every process that sees the same members. It
// sends nothing. One whose end this process has heard of is not picked, nor one on a host that it
// has heard to be unreachable; one that has just ended elsewhere may be, and then a message to it
// fails as to any actor. actors.ErrNoActor if the group has no members.
//
// The first time that a member is picked it is monitored, by which a lane to its process is made.
func (g *Group) Pick(key string) (*actor.PID, error) {
	hash := group.Hash(key)
	var best *groupMember
	var most uint64
	for _, m := range g.now.Load().members {
		if w := group.Weight(m.hash, hash); (best == nil || w > most) && !m.ended.Load() {
			best, most = m, w
		}
	}
	if best == nil {
		return nil, fmt.Errorf("hosts: group %q: no member: %w", g.name, actors.ErrNoActor)
	}
	best.watch.Do(func() { g.client.follows(best) })
	return best.pid, nil
}

// Rank returns all members in the order in which they are to have a key, for copies: the first is
// that of Pick, and the next has the key when it goes.
func (g *Group) Rank(key string) []*actor.PID {
	members := g.live()
	group.Rank(members, group.Hash(key), func(m *groupMember) group.Hashed { return m.hash }, func(m *groupMember) string { return m.key })
	return pidsOf(members)
}

// Members returns all members, by their hosts and names, to tell something to each.
func (g *Group) Members() []*actor.PID { return pidsOf(g.live()) }

// Changed returns what is closed when a member comes or goes. It is taken before the members are
// looked at.
func (g *Group) Changed() <-chan struct{} { return g.now.Load().changed }

// live returns the members whose Down has not come.
func (g *Group) live() []*groupMember {
	return slices.DeleteFunc(slices.Clone(g.now.Load().members), func(m *groupMember) bool { return m.ended.Load() })
}

func pidsOf(members []*groupMember) []*actor.PID {
	pids := make([]*actor.PID, len(members))
	for i, m := range members {
		pids[i] = m.pid
	}
	return pids
}

// follows has a member not be picked any more when its Down has come, or that of its host.
func (c *groupClient) follows(m *groupMember) {
	mon := c.system.Monitor(m.pid)
	go func() { // ends with the member, its lane, or the system
		d := <-mon.C
		if err := d.Reason.Err(); laneEnded(err) {
			return // it may live; the gateway tells
		}
		m.ended.Store(true)
	}()
}
