package supervisor

import "iter"

// table is a persistent map from small integers to values, ordered by key: a
// tree of 32-way nodes. An edit copies the path to the changed place, once
// per generation, so a published table never changes, and the cost of a
// change does not grow with the number of children.
type table[T any] struct {
	root   *tableNode[T]
	height int // levels below the root
	n      int
}

type tableNode[T any] struct {
	gen uint64 // nodes of the current generation are edited in place
	n   int    // slots in use
	sub *[tableWidth]*tableNode[T]
	val *[tableWidth]*T
}

const (
	tableBits  = 5
	tableWidth = 1 << tableBits
)

func (t *table[T]) len() int { return t.n }

// set enters v, or removes the key if v is nil. Nodes of generation gen belong
// to the caller: no published table holds them.
func (t *table[T]) set(gen, key uint64, v *T) {
	for v != nil && (t.root == nil || key>>(tableBits*(t.height+1)) != 0) {
		if t.root == nil {
			t.root = newTableNode[T](gen, 0)
			continue
		}
		up := newTableNode[T](gen, t.height+1)
		if t.root.n > 0 {
			up.sub[0], up.n = t.root, 1
		}
		t.root = up
		t.height++
	}
	if t.root == nil || key>>(tableBits*(t.height+1)) != 0 {
		return
	}
	t.root = t.edit(t.root, gen, key, t.height, v)
}

func (t *table[T]) edit(n *tableNode[T], gen, key uint64, level int, v *T) *tableNode[T] {
	i := key >> (tableBits * level) & (tableWidth - 1)
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
		sub = newTableNode[T](gen, level-1)
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

func newTableNode[T any](gen uint64, level int) *tableNode[T] {
	if level == 0 {
		return &tableNode[T]{gen: gen, val: new([tableWidth]*T)}
	}
	return &tableNode[T]{gen: gen, sub: new([tableWidth]*tableNode[T])}
}

func (n *tableNode[T]) own(gen uint64) *tableNode[T] {
	if n.gen == gen {
		return n
	}
	c := &tableNode[T]{gen: gen, n: n.n}
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
func (t *table[T]) all() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		if t.root != nil {
			t.root.walk(yield)
		}
	}
}

func (n *tableNode[T]) walk(yield func(*T) bool) bool {
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
