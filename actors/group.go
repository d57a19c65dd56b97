package actors

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/asynkron/protoactor-go/actor"
)

// Group is the actors of one id in all processes of a pool: those that are called cache in web/0,
// web/1 and so on. It is a value; all its methods may be called concurrently.
//
// Its members are the processes that have a name in the pool at the moment of the call. A change of
// a name returns only when every process that uses the group knows it.
type Group struct {
	s        *System
	pool, id string
}

// Group returns the actors called id in the processes of a pool.
func (s *System) Group(pool, id string) Group { return Group{s, pool, id} }

func (g Group) members(ctx context.Context) ([]poolMember, error) {
	if !g.s.peers.hasUplink() {
		return g.s.names.members(g.pool), nil
	}
	a, err := g.s.names.wait(ctx, nameMembers, g.pool)
	return a.members, err
}

// names returns the PIDs that follow the holders of the members' names.
func (g Group) names(list []poolMember) []*actor.PID {
	pids := make([]*actor.PID, 0, len(list))
	for _, m := range list {
		pids = append(pids, g.s.Lookup(m.name+"/"+g.id))
	}
	return pids
}

// Members returns the names of the members, by slot. In a child process it may ask the master,
// under ctx. No member is an empty list.
func (g Group) Members(ctx context.Context) ([]*actor.PID, error) {
	list, err := g.members(ctx)
	if err != nil {
		return nil, fmt.Errorf("actors: members of %s: %w", g.pool, err)
	}
	return g.names(list), nil
}

// Rank returns the members in the order in which they are to have a key, by consistent hashing: the
// order of two members for a key never changes and is the same in every process, whichever members
// come or go. So when a member goes, only its keys move, each to the next in its rank; they come
// back with the name. The PIDs are names: they reach a replacement in the same slot.
func (g Group) Rank(ctx context.Context, key string) ([]*actor.PID, error) {
	list, err := g.members(ctx)
	if err != nil {
		return nil, fmt.Errorf("actors: rank in %s: %w", g.pool, err)
	}
	list = slices.Clone(list)
	weight := make(map[string]uint64, len(list))
	for _, m := range list {
		weight[m.name] = rendezvous(m.name, key)
	}
	slices.SortFunc(list, func(a, b poolMember) int {
		return cmp.Or(cmp.Compare(weight[b.name], weight[a.name]), strings.Compare(a.name, b.name))
	})
	return g.names(list), nil
}

// rendezvous is the weight of a member for a key (highest random weight). It is part of the
// protocol: all processes of a tree, of two releases too, must agree. FNV-1a alone gives
// neighbouring slots weights that depend on each other; the finaliser of splitmix64 parts them.
func rendezvous(name, key string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(key))
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
