// Package group decides about groups over hosts: who is in them, and which member a key belongs to.
// It is pure: no locks, no clocks, no messages.
//
// A gateway has Lists: the members of its own host, which have joined there, and of each
// other host what the gateway of that one has told. Whoever keeps a copy of Lists, a process
// of the host or another gateway, asks for what has changed after the version that it has.
package group

import (
	"cmp"
	"maps"
	"slices"
)

// A Member is an actor of a group, under a name that no other member of its host has.
type Member struct {
	Name    string
	Address string // of its process
	ID      string // of the actor
}

// A List is the members of a group on one host, by their names. None: the host has no more.
type List struct {
	Group, Host string
	Members     []Member
}

// Bounds of what one host can have others hold.
const (
	MaxGroups  = 1024 // of a host
	MaxMembers = 4096 // of a group on a host
)

type listOf struct{ group, host string }

// stamped is a list, and the version that has changed it last.
type stamped struct {
	members []Member
	version uint64
}

// joined is a member of this host. Of several with one name the newest process's counts, and in it
// who has joined last.
type joined struct {
	Member
	process uint64
	turn    uint64
}

// Lists are what a gateway knows of all groups. The zero value is not usable.
type Lists struct {
	host    string
	version uint64 // of the latest change
	turn    uint64
	own     map[string][]joined // by group
	lists   map[listOf]*stamped // one that has become empty stays, for those who have it still, until keep others have

	empty     []emptied // in the order of their versions
	keep      int       // how many of them stay
	forgotten uint64    // version of the latest that was dropped
}

// emptied is a list that has become empty with a version. It may have another one since.
type emptied struct {
	listOf
	version uint64
}

// NewLists returns an empty one, for a host.
func NewLists(host string) *Lists {
	return &Lists{host: host, own: make(map[string][]joined), lists: make(map[listOf]*stamped), keep: MaxGroups}
}

// Forgotten returns the version from which on Since is right: who has an earlier one is to forget
// what it has, and to ask for what there is after version 0.
func (d *Lists) Forgotten() uint64 { return d.forgotten }

// Version returns the version of the latest change.
func (d *Lists) Version() uint64 { return d.version }

// Join enters an actor of this host; process is the number of its process, higher in a later one.
// It returns false at a bound.
func (d *Lists) Join(group string, m Member, process uint64) bool {
	all := d.own[group]
	if i := slices.IndexFunc(all, func(j joined) bool { return j.Member == m }); i >= 0 {
		return true
	}
	if all == nil && len(d.own) >= MaxGroups || len(all) >= MaxMembers {
		return false
	}
	d.turn++
	d.own[group] = append(all, joined{m, process, d.turn})
	d.renew(group)
	return true
}

// Leave takes an actor out of a group, under whatever name; "" for group is all groups. It reports
// whether it was in one.
func (d *Lists) Leave(group, address, id string) (was bool) {
	for name, all := range d.own {
		if group != "" && name != group {
			continue
		}
		left := slices.DeleteFunc(slices.Clone(all), func(j joined) bool { return j.Address == address && j.ID == id })
		if len(left) == len(all) {
			continue
		}
		was = true
		if d.own[name] = left; len(left) == 0 {
			delete(d.own, name)
		}
		d.renew(name)
	}
	return was
}

// renew makes the list of this host's members of a group.
func (d *Lists) renew(group string) {
	best := make(map[string]joined)
	for _, j := range d.own[group] {
		if old, ok := best[j.Name]; !ok || cmp.Or(cmp.Compare(j.process, old.process), cmp.Compare(j.turn, old.turn)) > 0 {
			best[j.Name] = j
		}
	}
	var members []Member
	for _, name := range slices.Sorted(maps.Keys(best)) {
		members = append(members, best[name].Member)
	}
	d.put(listOf{group, d.host}, members)
}

func (d *Lists) put(at listOf, members []Member) {
	old := d.lists[at]
	if old == nil && len(members) == 0 || old != nil && slices.Equal(old.members, members) {
		return
	}
	d.version++
	d.lists[at] = &stamped{members, d.version}
	if len(members) > 0 {
		return
	}
	if d.empty = append(d.empty, emptied{at, d.version}); len(d.empty) <= d.keep {
		return
	}
	if first := d.empty[0]; d.lists[first.listOf] != nil && d.lists[first.listOf].version == first.version {
		d.forgotten = first.version
		delete(d.lists, first.listOf)
	}
	d.empty = d.empty[1:]
}

// Foreign takes lists of another host: what has changed, or with all set everything that it has. A
// list of a third host, one that is too long, and what is over MaxGroups, counts for nothing.
func (d *Lists) Foreign(host string, lists []List, all bool) {
	if host == d.host {
		return
	}
	groups := 0
	for at, l := range d.lists {
		if at.host == host && len(l.members) > 0 {
			groups++
		}
	}
	told := make(map[string]bool)
	for _, l := range lists {
		at := listOf{l.Group, host}
		if l.Host != host || len(l.Members) > MaxMembers {
			continue
		}
		if old := d.lists[at]; len(l.Members) > 0 && (old == nil || len(old.members) == 0) {
			if groups++; groups > MaxGroups {
				continue
			}
		}
		told[l.Group] = true
		d.put(at, l.Members)
	}
	if all {
		for at := range d.lists {
			if at.host == host && !told[at.group] {
				d.put(at, nil)
			}
		}
	}
}

// Lost forgets the members of a host that cannot be reached.
func (d *Lists) Lost(host string) { d.Foreign(host, nil, true) }

// Since returns the lists that have changed after a version, in the order of their groups and
// hosts; with own set those of this host alone. Of version 0 an empty list is nothing.
func (d *Lists) Since(after uint64, own bool) []List {
	var lists []List
	for at, l := range d.lists {
		if l.version > after && (!own || at.host == d.host) && (after > 0 || len(l.members) > 0) {
			lists = append(lists, List{at.group, at.host, l.members})
		}
	}
	slices.SortFunc(lists, func(a, b List) int { return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Host, b.Host)) })
	return lists
}

// Has reports whether an actor of this host is in a group.
func (d *Lists) Has(address, id string) bool {
	for _, all := range d.own {
		if slices.ContainsFunc(all, func(j joined) bool { return j.Address == address && j.ID == id }) {
			return true
		}
	}
	return false
}
