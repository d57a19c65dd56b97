package hosts

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts/internal/group"
	"github.com/coppice-go/coppice/actors/hosts/internal/trunk"
)

// directoryName is the gateway's actor that knows the groups.
const directoryName = "groups"

// What processes and gateways say to a directory, and its answers.
type (
	// groupJoin enters an actor of this host, and groupLeave takes it out.
	groupJoin struct {
		Group  string
		Member group.Member
	}
	groupLeave struct {
		Group  string
		Member group.Member
	}
	// groupDone answers both, with what was wrong, or the version that has it.
	groupDone struct {
		Err       string
		Directory string
		Version   uint64
	}

	// groupPoll asks for what has changed since the version that a directory had. It is answered
	// when there is something. Own is for the lists of its own host, as another one wants them.
	groupPoll struct {
		Directory string // whose After is; "": the asker has nothing
		After     uint64
		Own       bool
	}
	groupLists struct {
		Directory string // drawn; another gateway has another one
		Version   uint64
		All       bool // the asker has to forget what it has
		Lists     []group.List
	}
)

func init() {
	actors.RegisterType[groupJoin]("coppice.hosts.group.join")
	actors.RegisterType[groupLeave]("coppice.hosts.group.leave")
	actors.RegisterType[groupDone]("coppice.hosts.group.done")
	actors.RegisterType[groupPoll]("coppice.hosts.group.poll")
	actors.RegisterType[groupLists]("coppice.hosts.group.lists")
}

// What the gateway itself says to its directory.
type (
	foreignUp struct { // before anything that comes by the trunk
		trunk *trunk.Trunk
		peer  trunk.Host
	}
	foreignLists struct {
		trunk *trunk.Trunk
		lists []group.List
		all   bool
	}
	foreignLost struct{ trunk *trunk.Trunk } // before the next trunk to the host is up
	watchAgain  struct{ actorKey }
)

// pollPause is between two polls that fail, at most, and the first is a tenth of it.
const pollPause = time.Second

// A groupDirectory is the actor of a gateway that knows who is in the groups: the members of its
// host, which join it, and those of the others, whose directories it polls. It never waits.
type groupDirectory struct {
	system *actors.System
	name   string // drawn
	known  *group.Lists
	trunks map[*trunk.Trunk]trunk.Host  // that are up, and to whom
	polls  map[string]heldPoll          // by process of this host, and by boot
	watch  map[actorKey]*actors.Monitor // members of this host
	askers map[string]struct{}          // processes of this host that are watched for their polls
}

type actorKey struct{ address, id string }

// heldPoll is a poll that waits for a change. Of a process there is one at a time.
type heldPoll struct {
	asker *actor.PID
	groupPoll
}

func newDirectory(s *actors.System, host string) *groupDirectory {
	return &groupDirectory{
		system: s, name: rand.Text(), known: group.NewLists(host), trunks: make(map[*trunk.Trunk]trunk.Host),
		polls: make(map[string]heldPoll), watch: make(map[actorKey]*actors.Monitor), askers: make(map[string]struct{}),
	}
}

// Receive does what actor.Actor says.
func (d *groupDirectory) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case groupJoin:
		why := d.join(ctx, m)
		ctx.Respond(groupDone{why, d.name, d.known.Version()})
	case groupLeave:
		if d.known.Leave(m.Group, m.Member.Address, m.Member.ID) && !d.known.Has(m.Member.Address, m.Member.ID) {
			key := actorKey{m.Member.Address, m.Member.ID}
			d.watch[key].Cancel()
			delete(d.watch, key)
		}
		ctx.Respond(groupDone{"", d.name, d.known.Version()})
	case *actors.Down:
		d.down(ctx, m)
	case watchAgain:
		if d.watch[m.actorKey] != nil {
			d.watch[m.actorKey] = d.system.MonitorFrom(ctx, actor.NewPID(m.address, m.id))
		}
	case foreignUp:
		d.trunks[m.trunk] = m.peer
	case foreignLists:
		peer, up := d.trunks[m.trunk]
		if !up { // it is late
			return
		}
		d.known.Foreign(peer.Name, slices.DeleteFunc(m.lists, func(l group.List) bool { return !soundList(l, peer.Boot) }), m.all)
	case foreignLost:
		peer := d.trunks[m.trunk]
		delete(d.trunks, m.trunk)
		delete(d.polls, peer.Boot)
		d.known.Lost(peer.Name)
	case groupPoll:
		d.hold(ctx, m)
	default:
		return
	}
	for address, p := range d.polls {
		if a, ok := d.answer(p.groupPoll); ok {
			delete(d.polls, address)
			ctx.Send(p.asker, a)
		}
	}
}

// hold takes a poll.
func (d *groupDirectory) hold(ctx actor.Context, p groupPoll) {
	asker := ctx.Sender()
	if asker == nil {
		return
	}
	from := asker.Address
	if _, here := actors.LocalID(d.system.Address(), from); !here {
		p.Own, from = true, actors.Boot(from)
		if !d.reaches(from) {
			return // it is late: the trunk is lost
		}
	} else if _, known := d.askers[from]; !known {
		d.askers[from] = struct{}{}
		d.system.MonitorFrom(ctx, actors.ProcessPID(from))
	}
	d.polls[from] = heldPoll{asker, p}
}

// reaches reports whether there is a trunk to a boot.
func (d *groupDirectory) reaches(boot string) bool {
	for _, h := range d.trunks {
		if h.Boot == boot {
			return true
		}
	}
	return false
}

// down takes the end of a member, or of a process that polls.
func (d *groupDirectory) down(ctx actor.Context, m *actors.Down) {
	if m.PID.Equal(actors.ProcessPID(m.PID.Address)) {
		delete(d.polls, m.PID.Address)
		delete(d.askers, m.PID.Address)
		return
	}
	key := actorKey{m.PID.Address, m.PID.Id}
	if errors.Is(m.Reason.Err(), actors.ErrLane) { // it may live
		self := ctx.Self()
		time.AfterFunc(pollPause/10, func() { _ = d.system.Send(context.Background(), self, watchAgain{key}) })
		return
	}
	delete(d.watch, key)
	d.known.Leave("", key.address, key.id)
}

// soundList reports whether a list can be that of a host of a boot, which lists its own processes.
func soundList(l group.List, boot string) bool {
	return CheckName(l.Group) == nil && !slices.ContainsFunc(l.Members, func(m group.Member) bool {
		return actors.Boot(m.Address) != boot || CheckName(m.Name) != nil
	})
}

// join returns what is wrong with a join; "": nothing.
func (d *groupDirectory) join(ctx actor.Context, m groupJoin) string {
	number, here := actors.LocalID(d.system.Address(), m.Member.Address)
	process, err := strconv.ParseUint(number, 10, 64)
	for _, name := range []string{m.Group, m.Member.Name} {
		if bad := CheckName(name); bad != nil {
			return bad.Error()
		}
	}
	if !here || err != nil {
		return m.Member.Address + " is no process of this host"
	}
	if !d.known.Join(m.Group, m.Member, process) {
		return actors.ErrTooMany.Error()
	}
	key := actorKey{m.Member.Address, m.Member.ID}
	if d.watch[key] == nil {
		d.watch[key] = d.system.MonitorFrom(ctx, actor.NewPID(key.address, key.id))
	}
	return ""
}

func (d *groupDirectory) answer(p groupPoll) (groupLists, bool) {
	a := groupLists{Directory: d.name, Version: d.known.Version(), All: p.Directory != d.name || p.After < d.known.Forgotten()}
	if a.All {
		p.After = 0
	}
	a.Lists = d.known.Since(p.After, p.Own)
	return a, a.All || len(a.Lists) > 0
}

// follow polls the directory of another host while there is a trunk to it, and tells its own one.
func (g *gateway) follow(t *trunk.Trunk, s *actors.System, to *actor.PID) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with the trunk
		<-t.Done()
		cancel()
	}()
	var last groupPoll
	for pause := pollPause / 10; ctx.Err() == nil; {
		a, err := actors.Ask[groupLists](ctx, s, s.LookupAt(t.Peer().Name, gatewayName+"/"+directoryName), last)
		if err != nil { // the trunk ends, its gateway is another one, or has no groups
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(2*pause, pollPause)
			continue
		}
		pause = pollPause / 10
		last = groupPoll{Directory: a.Directory, After: a.Version, Own: true}
		_ = s.Send(ctx, to, foreignLists{t, a.Lists, a.All})
	}
}
