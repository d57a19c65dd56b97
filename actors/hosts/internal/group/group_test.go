package group

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestGolden: the weights are a part of the protocol.
func TestGolden(t *testing.T) {
	for _, row := range []struct {
		host, name, key string
		want            uint64
	}{{"a", "web/0", "", 0xd665f1a1b0a8d80f}, {"a", "web/0", "user:42", 0xacdf0ea73a0fd663}, {"b", "web/0", "user:42", 0xb2ca7804cee54285}, {"a", "web/1", "user:42", 0xe020651c8aa16f3c}} {
		if got := Weight(HashMember(row.host, row.name), Hash(row.key)); got != row.want {
			t.Errorf("%s/%s for %q: %#x", row.host, row.name, row.key, got)
		}
	}
}

// owners returns the member of each of n keys.
func owners(members []Hashed, n int) []int {
	all := make([]int, n)
	for i := range all {
		key, best := Hash(fmt.Sprint("user:", i)), uint64(0)
		for j, m := range members {
			if w := Weight(m, key); j == 0 || w > best {
				all[i], best = j, w
			}
		}
	}
	return all
}

// hostsOf returns the members of hosts with as many workers each.
func hostsOf(hosts, workers int) (members []Hashed) {
	for h := range hosts {
		for w := range workers {
			members = append(members, HashMember(fmt.Sprint("host-", h), fmt.Sprint("web/", w)))
		}
	}
	return members
}

// TestSpread: keys are spread evenly, and when a host goes, or comes, only its keys move.
func TestSpread(t *testing.T) {
	const keys = 100_000
	for _, size := range [][2]int{{2, 1}, {3, 2}, {3, 8}, {10, 8}, {50, 1}} {
		members := hostsOf(size[0], size[1])
		all := owners(members, keys)
		count := make([]int, len(members))
		for _, m := range all {
			count[m]++
		}
		mean := float64(keys) / float64(len(members))
		worst := 0.0 // in standard deviations of a fair die
		for _, n := range count {
			worst = max(worst, math.Abs(float64(n)-mean)/math.Sqrt(mean*(1-1/float64(len(members)))))
		}
		if worst > 5 {
			t.Errorf("%v: the worst member is %.1f standard deviations off", size, worst)
		}
		fewer := owners(members[:len(members)-size[1]], keys)
		moved := 0
		for i := range all {
			if all[i] == fewer[i] {
				continue
			}
			if moved++; all[i] < len(members)-size[1] {
				t.Fatalf("%v: a key has left a member that stays", size)
			}
		}
		t.Logf("%d hosts of %d: of %.0f keys a member %d to %d; %.2f %% move with a host of %.2f %%", size[0], size[1], mean, slices.Min(count), slices.Max(count),
			float64(moved)*100/keys, 100/float64(size[0]))
	}
}

// A copied is a copy of Lists, as a process or another gateway keeps it.
type copied struct {
	after uint64
	lists map[listOf][]Member
}

func (c *copied) ask(d *Lists) {
	if c.lists == nil || c.after > d.version || c.after < d.forgotten { // another gateway, or it is asked too late
		*c = copied{lists: make(map[listOf][]Member)}
	}
	for _, l := range d.Since(c.after, false) {
		if c.lists[listOf{l.Group, l.Host}] = l.Members; len(l.Members) == 0 {
			delete(c.lists, listOf{l.Group, l.Host})
		}
	}
	c.after = d.version
}

// play plays members of three hosts that come and go, gateways that lose each other and are started
// anew, and compares what copies have with what is true when all have asked.
func play(t *testing.T, steps []byte) {
	names, groups := []string{"a", "b", "c"}, []string{"x", "y"}
	type actor struct {
		group string
		m     Member
		n     uint64
	}
	live := make(map[string][]actor) // by host
	dirs, linked := make(map[string]*Lists), make(map[[2]string]bool)
	copies, between := make(map[string]*copied), make(map[[2]string]uint64)
	for _, h := range names {
		dirs[h], copies[h] = NewLists(h), new(copied)
		dirs[h].keep = len(steps) % 8 / 2
	}
	ask := func(from, to string) { // gateway from asks gateway to
		at := [2]string{from, to}
		if !linked[at] {
			return
		}
		after := between[at]
		if after < dirs[to].forgotten {
			after = 0
		}
		dirs[from].Foreign(to, dirs[to].Since(after, true), after == 0)
		between[at] = dirs[to].version
	}
	n := uint64(0)
	for i := 0; i+1 < len(steps); i += 2 {
		h, other, group := names[steps[i+1]%3], names[(steps[i+1]+1+steps[i+1]>>4%2)%3], groups[steps[i+1]>>7]
		at := [2]string{h, other}
		switch steps[i] % 8 {
		case 0, 1:
			n++
			a := actor{group, Member{fmt.Sprint("web/", steps[i]>>3%2), fmt.Sprint("boot", h, ".", n), "cache"}, n}
			live[h] = append(live[h], a)
			dirs[h].Join(a.group, a.m, a.n)
		case 2:
			if all := live[h]; len(all) > 0 {
				j := int(steps[i]>>3) % len(all)
				if !dirs[h].Leave([]string{"", all[j].group}[steps[i]>>7], all[j].m.Address, all[j].m.ID) {
					t.Error("who leaves was not in it")
				}
				live[h] = slices.Delete(all, j, j+1)
			}
		case 3:
			linked[at] = true
			between[at] = 0
		case 4:
			linked[at] = false
			dirs[h].Lost(other)
		case 5:
			ask(h, other)
		case 6:
			copies[h].ask(dirs[h])
		case 7: // another gateway; its processes join anew, in any order
			dirs[h], copies[h] = NewLists(h), new(copied)
			dirs[h].keep = int(steps[i] >> 6)
			for _, j := range rand.New(rand.NewPCG(uint64(i), 1)).Perm(len(live[h])) {
				dirs[h].Join(live[h][j].group, live[h][j].m, live[h][j].n)
			}
			for _, o := range names {
				linked[[2]string{o, h}], linked[[2]string{h, o}] = false, false
				dirs[o].Lost(h)
			}
		}
	}
	for _, h := range names {
		for _, o := range names {
			if h != o {
				ask(h, o)
			}
		}
	}
	for _, h := range names {
		copies[h].ask(dirs[h])
		want := make(map[listOf][]Member)
		for _, o := range names {
			for _, a := range live[o] {
				if o != h && !linked[[2]string{h, o}] {
					continue
				}
				at := listOf{a.group, o}
				i := slices.IndexFunc(want[at], func(m Member) bool { return m.Name == a.m.Name })
				if i < 0 {
					want[at] = append(want[at], a.m)
				} else { // live is in the order of the numbers
					want[at][i] = a.m
				}
			}
		}
		for at, members := range want {
			slices.SortFunc(members, func(a, b Member) int { return map[bool]int{true: -1, false: 1}[a.Name < b.Name] })
			if !slices.Equal(copies[h].lists[at], members) {
				t.Fatalf("%s has of %v %v, want %v", h, at, copies[h].lists[at], members)
			}
		}
		if len(copies[h].lists) != len(want) {
			t.Fatalf("%s has %v, want %v", h, copies[h].lists, want)
		}
	}
}

// stepsOf returns random steps.
func stepsOf(seed uint64) []byte {
	r, steps := rand.New(rand.NewPCG(seed, 0)), make([]byte, 400)
	for i := range steps {
		steps[i] = byte(r.Uint32())
	}
	return steps
}

// TestCopies: whatever happens, who has asked last has what is true of the hosts that are reached.
func TestCopies(t *testing.T) {
	for seed := range uint64(300) {
		play(t, stepsOf(seed))
	}
}

func FuzzCopies(f *testing.F) {
	f.Add(stepsOf(1))
	f.Fuzz(play)
}

// TestBounds: a host that tells lists of others, or too many, fills nothing.
func TestBounds(t *testing.T) {
	d := NewLists("a")
	var lists []List
	for i := range MaxGroups + 10 {
		lists = append(lists, List{fmt.Sprint("g", i), "b", []Member{{"x", "bootb.1", "c"}}})
	}
	d.Foreign("b", append(lists, List{"g0", "a", lists[0].Members}, List{"g0", "c", lists[0].Members}, List{"g1", "b", make([]Member, MaxMembers+1)}), true)
	d.Foreign("a", lists, true)
	if n := len(d.Since(0, false)); n != MaxGroups || len(d.Since(0, true)) != 0 {
		t.Errorf("%d lists, and %d of a", n, len(d.Since(0, true)))
	}
	for i := range MaxGroups + 1 {
		if ok := d.Join(fmt.Sprint(i), Member{"x", "boota.1", "c"}, 1); ok != (i < MaxGroups) {
			t.Fatalf("group %d: %v", i, ok)
		}
	}
}

// TestForgotten: groups that come and go fill nothing, those of other hosts neither, and no
// reader begins anew because of one that comes and goes again and again.
func TestForgotten(t *testing.T) {
	d, late := NewLists("a"), new(copied)
	stays := Member{"x", "bootb.1", "c"}
	d.Foreign("b", []List{{"stays", "b", []Member{stays}}}, true)
	late.ask(d)
	turn := func(i int, m Member) {
		d.Join(fmt.Sprint("g", i), m, 1)
		d.Leave("", m.Address, m.ID)
	}
	for i := range 3 * MaxGroups {
		turn(1, Member{"x", fmt.Sprint("boota.", i), "c"})
	}
	if d.Forgotten() > late.after {
		t.Error("one group has others forgotten")
	}
	for i := range 3 * MaxGroups {
		turn(i, Member{"x", "boota.1", "c"})
		d.Foreign("b", []List{{fmt.Sprint("g", i), "b", []Member{stays}}}, false)
		d.Foreign("b", []List{{fmt.Sprint("g", i), "b", nil}}, false)
	}
	if n := len(d.lists) + len(d.empty); n > 2*MaxGroups+1 {
		t.Errorf("%d are remembered", n)
	}
	late.ask(d)
	if got := late.lists[listOf{"stays", "b"}]; len(late.lists) != 1 || !slices.Equal(got, []Member{stays}) {
		t.Errorf("who is late has %v", late.lists)
	}
}

// BenchmarkPick: one key among the members of 50 hosts with 8 each.
func BenchmarkPick(b *testing.B) {
	members := hostsOf(50, 8)
	for b.Loop() {
		owners(members, 1)
	}
}
