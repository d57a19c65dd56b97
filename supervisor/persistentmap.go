package supervisor

import "iter"

// persistentMap is a persistent map from small integers to values, ordered by key: a tree of 32-way
// nodes. An edit copies the path to the changed place, once per generation, so a published map
// never changes, and the cost of a change does not grow with the number of children.
type persistentMap[T any] struct {
	root   *mapNode[T]
	height int // levels below the root
	n      int
}

type mapNode[T any] struct {
	gen uint64 // nodes of the current generation are edited in place
	n   int    // slots in use
	sub *[mapWidth]*mapNode[T]
	val *[mapWidth]*T
}

const (
	mapBits  = 5
	mapWidth = 1 << mapBits
)

func (t *persistentMap[T]) len() int { return t.n }

// set enters v, or removes the key if v is nil. Nodes of generation gen belong
// to the caller: no published table holds them.
func (t *persistentMap[T]) set(gen, key uint64, v *T) {
	for v != nil && (t.root == nil || key>>(mapBits*(t.height+1)) != 0) {
		if t.root == nil {
			t.root = newMapNode[T](gen, 0)
			continue
		}
		up := newMapNode[T](gen, t.height+1)
		if t.root.n > 0 {
			up.sub[0], up.n = t.root, 1
		}
		t.root = up
		t.height++
	}
	if t.root == nil || key>>(mapBits*(t.height+1)) != 0 {
		return
	}
	t.root = t.edit(t.root, gen, key, t.height, v)
}

func (t *persistentMap[T]) edit(n *mapNode[T], gen, key uint64, level int, v *T) *mapNode[T] {
	i := key >> (mapBits * level) & (mapWidth - 1)
	n = n.own(gen)
	if level == 0 {
		switch old := n.val[i]; {
		case old == nil && v != nil:
			n.n++
			t.n++
		case old != nil && v == nil:
			n.n--
			t.n--
		}
		n.val[i] = v
		return n
	}
	sub := n.sub[i]
	if sub == nil {
		if v == nil {
			return n
		}
		sub = newMapNode[T](gen, level-1)
		n.n++
	}
	sub = t.edit(sub, gen, key, level-1, v)
	if sub.n == 0 {
		sub = nil
		n.n--
	}
	n.sub[i] = sub
	return n
}

func newMapNode[T any](gen uint64, level int) *mapNode[T] {
	if level == 0 {
		return &mapNode[T]{gen: gen, val: new([mapWidth]*T)}
	}
	return &mapNode[T]{gen: gen, sub: new([mapWidth]*mapNode[T])}
}

func (n *mapNode[T]) own(gen uint64) *mapNode[T] {
	if n.gen == gen {
		return n
	}
	c := &mapNode[T]{gen: gen, n: n.n}
	if n.sub != nil {
		sub := *n.sub
		c.sub = &sub
	} else {
		val := *n.val
		c.val = &val
	}
	return c
}

// all returns the values in key order.
func (t *persistentMap[T]) all() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		if t.root != nil {
			t.root.walk(yield)
		}
	}
}

func (n *mapNode[T]) walk(yield func(*T) bool) bool {
	if n.val != nil {
		for _, v := range n.val {
			if v != nil && !yield(v) {
				return false
			}
		}
		return true
	}
	for _, sub := range n.sub {
		if sub != nil && !sub.walk(yield) {
			return false
		}
	}
	return true
}
