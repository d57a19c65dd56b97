package coppice

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/declaration"
	"github.com/coppice-go/coppice/runtime/internal/handover"
	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
)

// An inheritance is what the image of the master before this one has left, until the parts of this
// one have taken it. A nil inheritance is empty: nothing was before.
type inheritance struct {
	state  handover.Master
	file   *os.File // has the state
	fds    []int    // that came with it
	back   string   // why this program is executed again in place of its successor; "" = it is the successor
	timer  *time.Timer
	giveUp func(error) // ends the trial, which has failed
	execed time.Time   // when the image before executed this one

	begun     map[string]int         // sizes of pools that the tree begins with
	resize    map[string]int         // pools that get another size after the trial
	later     []supervisor.ChildSpec // children of the root that only this program has
	rolled    chan struct{}          // closed when the reload of the upgrade is over
	failures  chan error             // capacity 1: why the upgrade is to fail
	had       map[string]int         // slots of the pools of the image before, by path
	stays     map[string]bool        // paths of its pools that this program has too
	leftover  []string               // IDs of children of the root that are stopped after the trial
	over      atomic.Bool            // the trial is over
	goingBack sync.Mutex             // held by a try to execute the old program again
	ended     chan struct{}          // closed when the trial has ended well

	mu    sync.Mutex
	begin []func() // what the parts do once the trial is over
}

// worker takes the worker of a slot of the pool at a path; of pool.Spare, one of the spares.
func (in *inheritance) worker(path string, slot int) *handover.FormerWorker {
	if in == nil {
		return nil
	}
	return takeOne(in, &in.state.Workers, func(w handover.FormerWorker) bool { return w.Pool == path && w.Hello.Slot == slot })
}

// takeOne takes the first of what is left for which is returns true; nil if there is none, or if
// the trial is over.
func takeOne[T any](in *inheritance, left *[]T, is func(T) bool) *T {
	in.mu.Lock()
	defer in.mu.Unlock()
	i := slices.IndexFunc(*left, is)
	if i < 0 || in.fds == nil {
		return nil
	}
	v := (*left)[i]
	*left = slices.Delete(*left, i, i+1)
	return &v
}

// isNew reports whether the image before had no workers of the pool at a path, until the reload of
// the upgrade is over: such a pool starts with the new program.
func (in *inheritance) isNew(path string) bool {
	return in != nil && !childproto.IsClosed(in.rolled) && in.had[path] == 0
}

// declared reports whether the image before had a child of that kind at a path.
func (in *inheritance) declared(path, kind string) bool {
	return slices.Contains(in.state.Tree, declaration.Line(path, declaration.Is, kind))
}

// sizes returns how many slots each pool has whose workers are taken over, by path.
func (in *inheritance) sizes() map[string]int {
	sizes := map[string]int{}
	for _, w := range in.state.Workers {
		sizes[w.Pool] = max(sizes[w.Pool], w.Hello.Slot+1)
	}
	for _, ended := range in.state.Idle {
		pool := path.Dir(ended)
		if slot, err := strconv.Atoi(path.Base(ended)); err == nil && sizes[pool] > 0 { // the worker has ended for good
			sizes[pool] = max(sizes[pool], slot+1)
		}
	}
	return sizes
}

// slots takes the book of the pool at a path; nil if there is none.
func (in *inheritance) slots(path string) (slots []pool.SlotBook) {
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	slots = in.state.Pools[path]
	delete(in.state.Pools, path) // a pool that is restarted begins anew
	return slots
}

// books returns the books of the supervisors.
func (in *inheritance) books() map[string]supervisor.Book {
	if in == nil {
		return nil
	}
	return in.state.Books
}

// left returns the paths of what the new program does not have. The spares of a pool that it has
// may still be to be taken.
func (in *inheritance) left() (pools map[string]int, programs []string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, p := range in.state.Programs {
		programs = append(programs, p.Path)
	}
	pools = in.sizes()
	maps.DeleteFunc(pools, func(path string, _ int) bool { return in.stays[path] })
	return pools, programs
}

// program takes the program at a path.
func (in *inheritance) program(path string) *handover.OtherProgram {
	if in == nil {
		return nil
	}
	return takeOne(in, &in.state.Programs, func(p handover.OtherProgram) bool { return p.Path == path })
}

// idle returns supervisor.ErrIgnore, once, for a child that did not run and is not to be started.
func (in *inheritance) idle(path string) error {
	if in == nil || takeOne(in, &in.state.Idle, func(p string) bool { return p == path }) == nil {
		return nil
	}
	return supervisor.ErrIgnore
}

// first returns the specs of children of root that the image before had too. The others are started
// after the trial: a new worker needs a link to a listener process that does not hear the master
// yet.
func (in *inheritance) first(specs []supervisor.ChildSpec, root *node) (first []supervisor.ChildSpec) {
	for _, c := range specs {
		if n := root.find(c.ID); n == nil || in.declared(n.path, declaration.Kind(n.spec)) {
			first = append(first, c)
		} else {
			in.later = append(in.later, c)
		}
	}
	return first
}

// beforeEnd is called before a process that was taken over is ended. In the trial that is a failure
// of the new program, and the old one gets the process back as it was.
func (in *inheritance) beforeEnd(name string) {
	if in == nil || childproto.IsClosed(in.ended) {
		return
	}
	in.giveUp(fmt.Errorf("%s was to be stopped, which was taken over", name))
	<-in.ended // it cannot go back, or the trial has just ended
}

// afterTrial has f called once the trial is over.
func (in *inheritance) afterTrial(f func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.begin = append(in.begin, f)
}

// confirm ends the trial: the parts begin, in the order in which they were taken over.
func (in *inheritance) confirm() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, f := range in.begin {
		f()
	}
	errs := []error{in.file.Close()}
	for _, fd := range in.fds { // the parts have duplicates
		if fd >= 0 {
			errs = append(errs, os.NewFile(uintptr(fd), "").Close())
		}
	}
	in.begin, in.fds = nil, nil
	close(in.ended)
	return errors.Join(errs...)
}
