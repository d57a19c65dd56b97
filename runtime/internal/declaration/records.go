package declaration

import (
	"maps"
	"slices"
)

// maxTold bounds the fields that News returns in all.
const maxReported = 1000

// Records are what a master knows of the declarations of its tree. It is not safe for concurrent
// use.
type Records struct {
	tree []string // the master's own, with what reloads have applied

	first       int                         // the generation that runs the master's own program
	generations map[int]map[string][]string // what the first worker of each pool declared
	computed    map[Field]bool              // one program gave it different values in different processes
	reported    map[Field]bool
}

// NewRecords returns the records of a master whose program declares tree. first is the first
// generation.
func NewRecords(tree []string, first int) *Records {
	return &Records{
		tree: tree, first: first,
		generations: map[int]map[string][]string{}, computed: map[Field]bool{}, reported: map[Field]bool{},
	}
}

// Tree returns what the tree has. The caller must not change it.
func (r *Records) Tree() []string { return r.tree }

// Add records what a fresh worker of a pool declares; nil means the same as the tree. The first
// worker of a pool counts for its generation.
func (r *Records) Add(generation int, pool string, lines []string) {
	if lines == nil {
		lines = r.tree
	}
	pools := r.generations[generation]
	if pools == nil {
		pools = map[string][]string{}
		r.generations[generation] = pools
	}
	if pools[pool] != nil {
		return
	}
	pools[pool] = lines
	if generation == r.first {
		for _, c := range Compare(r.tree, lines) {
			r.computed[c.Field] = true
		}
	}
}

// News returns the fields in which lines differ from the tree, without those that it, or Reloaded,
// returned before.
func (r *Records) News(lines []string) []Change {
	return slices.DeleteFunc(Compare(r.tree, lines), func(c Change) bool { return !r.markReported(c.Field) })
}

// markReported notes that k is reported, and returns false if it was before, or if too many are.
func (r *Records) markReported(k Field) bool {
	if r.reported[k] || len(r.reported) >= maxReported {
		return false
	}
	r.reported[k] = true
	return true
}

// Reloaded makes to the current generation. It compares what its workers declare with what those of
// the generation before declared, so that values which are computed alike in all workers are no
// change. It returns the sizes of pools that the tree is to take over, the fields that it keeps,
// and of these separately the fields that workers of the master's own program compute otherwise
// than the master. From is the tree's value.
func (r *Records) Reloaded(from, to int) (sizes, kept, computed []Change) {
	then, now := r.pair(from, to)
	tree, _ := values(r.tree)
	for _, c := range Compare(then, now) { // a child with a changed field is in both
		c.From = tree[c.Field]
		switch {
		case c.From == c.To:
		case r.computed[c.Field]:
			computed = append(computed, c)
		case c.Name == "Size" && tree[Field{c.Path, Is}] == "Pool":
			sizes = append(sizes, c)
		default:
			r.markReported(c.Field)
			kept = append(kept, c)
		}
	}
	maps.DeleteFunc(r.generations, func(g int, _ map[string][]string) bool { return g != to })
	return sizes, kept, computed
}

// pair returns what a worker of each of the two generations declared. Workers of one pool are
// compared, because their environments are alike.
func (r *Records) pair(from, to int) (then, now []string) {
	then, now = r.tree, r.tree
	for _, pool := range slices.Sorted(maps.Keys(r.generations[to])) {
		now = r.generations[to][pool]
		if before := r.generations[from][pool]; before != nil {
			return before, now
		}
	}
	return then, now
}

// Failed forgets a generation whose reload has failed.
func (r *Records) Failed(generation int) { delete(r.generations, generation) }

// Apply notes that the tree has taken over a value.
func (r *Records) Apply(c Change) { r.tree = With(r.tree, c.Field, c.To) }
