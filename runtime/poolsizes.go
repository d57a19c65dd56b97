package coppice

import (
	"log/slog"
	"maps"
	"strings"
	"sync"

	"github.com/coppice-go/coppice/runtime/internal/process"
)

// poolSizes are the sizes of the pools that were scaled, by path. They outlive a pool that its
// supervisor restarts, and not one that is deleted. The zero value is ready for use, by any
// goroutine.
type poolSizes struct {
	mu sync.Mutex
	of map[string]int
}

// size returns how many slots a pool is to have; initial is its number in the tree.
func (s *poolSizes) size(path string, initial int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sizeLocked(path, initial)
}

func (s *poolSizes) sizeLocked(path string, initial int) int {
	if n, ok := s.of[path]; ok {
		return n
	}
	return initial
}

// resize changes how many slots a pool is to have, and returns the number before and after. Of two
// concurrent calls the second starts from the result of the first.
func (s *poolSizes) resize(path string, initial int, to func(now int) int) (before, size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = s.sizeLocked(path, initial)
	size = to(before)
	s.setLocked(path, size)
	return before, size
}

// set notes how many slots the pool at path is to have.
func (s *poolSizes) set(path string, size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setLocked(path, size)
}

// all returns the sizes, by path.
func (s *poolSizes) all() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.of)
}

// takeOver sets the sizes, before any pool starts.
func (s *poolSizes) takeOver(sizes map[string]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of = maps.Clone(sizes)
}

// forget forgets the sizes of the pools at a path and below it.
func (s *poolSizes) forget(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.of, func(p string, _ int) bool { return p == path || strings.HasPrefix(p, path+"/") })
}

func (s *poolSizes) setLocked(path string, size int) {
	if s.of == nil {
		s.of = map[string]int{}
	}
	s.of[path] = size
}

// logMemory says which pools at or below a node share the memory that a cgroup leaves, 0 = none
// does, without having been told to.
func (s *poolSizes) logMemory(log *slog.Logger, gs *generations, cgroup int64, n *node) {
	if p, ok := n.spec.(Pool); ok && p.forksItself() && p.Environment.MemoryLimit == 0 {
		p = p.complete()
		if e := p.environment(s.size(n.path, p.Size), gs.environ(), cgroup, process.MemoryLimit()); e.MemoryLimit > 0 {
			log.Info("each worker gets its share of the container's memory (GOMEMLIMIT=off in the environment: none does)",
				"pool", n.path, "GOMEMLIMIT", e.MemoryLimit, "container", cgroup)
		}
	}
	for _, c := range n.children() {
		s.logMemory(log, gs, cgroup, c)
	}
}
