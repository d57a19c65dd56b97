package coppice

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/memfile"
)

// A generation is what a reload replaces as a whole: the executable that workers run, held open,
// and their configuration. A replacement within a generation gets both again, whatever happened to
// the file and to the configuration's source.
type generation struct {
	number int
	exe    *executable
	config []byte
	build  string // the build ID of exe

	// environ is the master's environment as the generation began, after Config.Load. It is the
	// environment of replacements too, whatever the master sets later.
	environ []string
	parent  *generation  // whose program and environment it has again; nil = its own
	uses    atomic.Int32 // number of holds; the release of the last closes exe and bulk

	bulkMu sync.Mutex
	bulk   *os.File // config for other processes, if it is long; nil until the first asks
}

// inlineConfig is how many bytes of configuration go in the hello. A longer configuration is
// written to a memory file once a generation, which all its processes share.
const inlineConfig = 64 << 10

// maxConfig bounds what Config.Load may return: each process maps it into its address space.
const maxConfig = 256 << 20

// handle returns a handle of a long configuration, owned by the caller.
func (g *generation) handle() (*fdipc.Handle, error) {
	f, err := g.sharedConfig()
	if err != nil {
		return nil, err
	}
	another, err := memfile.Duplicate(f)
	if err != nil {
		return nil, err
	}
	h, err := fdipc.HandleOf(another)
	if err != nil {
		return nil, errors.Join(err, another.Close())
	}
	return h, nil
}

// sharedConfig returns the file with a long configuration, owned by the generation.
func (g *generation) sharedConfig() (*os.File, error) {
	g.bulkMu.Lock()
	defer g.bulkMu.Unlock()
	if g.bulk != nil {
		return g.bulk, nil
	}
	var err error
	g.bulk, err = memfile.Sealed("configuration", g.config)
	return g.bulk, err
}

// newGeneration takes ownership of exe. The caller gets a hold on the generation.
func newGeneration(number int, exe *executable, config []byte) *generation {
	g := &generation{number: number, exe: exe, config: config, build: exe.BuildID(), environ: os.Environ()}
	g.uses.Store(1)
	return g
}

// hold adds a hold. The caller must know of another hold that lasts until hold returns.
func (g *generation) hold() *generation {
	g.uses.Add(1)
	return g
}

func (g *generation) release() {
	if g.uses.Add(-1) == 0 {
		if g.parent != nil {
			g.parent.release()
		} else {
			_ = g.exe.Close() // a file that was only read
		}
		if g.bulk != nil {
			_ = g.bulk.Close()
		}
	}
}

// generations are the generations that workers are started from: the current one and, during a
// reload, the next.
type generations struct {
	mu      sync.Mutex
	last    int // the newest number
	current *generation
	next    *generation
	ended   bool // the tree has ended: current is released
}

// takeOver makes current the generation of the workers that another image of the master has
// started, and next that of this program, to which a reload brings them. last is the newest number.
func (gs *generations) takeOver(last int, current *generation, exe *executable, config []byte) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	gs.last = last + 1
	gs.current, gs.next = current, newGeneration(gs.last, exe, config)
}

// newest returns the number of the next generation during a reload, otherwise of the current one.
func (gs *generations) newest() int {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if gs.next != nil {
		return gs.next.number
	}
	return gs.current.number
}

// first makes the first generation, with that configuration.
func (gs *generations) first(config []byte) error {
	exe, err := openExecutable()
	if err != nil {
		return fmt.Errorf("coppice: %w", err)
	}
	gs.last, gs.current = 1, newGeneration(1, exe, config)
	return nil
}

// now returns the current generation's number.
func (gs *generations) now() int {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	return gs.current.number
}

// environ returns the environment of the current generation.
func (gs *generations) environ() []string {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	return gs.current.environ
}

// use returns the generation of that number with a hold, or the current generation if that number
// is gone.
func (gs *generations) use(number int) *generation {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if gs.next != nil && gs.next.number == number {
		return gs.next.hold()
	}
	return gs.current.hold()
}

// prepare makes the next generation from exe and config, and takes ownership of exe.
func (gs *generations) prepare(exe *executable, config []byte) *generation {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	gs.last++
	gs.next = newGeneration(gs.last, exe, config)
	return gs.next
}

// again makes the next generation from the program, the configuration and the environment of an
// earlier one, of which the caller has a hold.
func (gs *generations) again(g *generation) *generation {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	gs.last++
	gs.next = &generation{number: gs.last, exe: g.exe, config: g.config, build: g.build, environ: g.environ, parent: g.hold()}
	gs.next.uses.Store(1)
	return gs.next
}

// finish ends a reload: the next generation becomes the current one, or is dropped.
func (gs *generations) finish(done bool) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	old := gs.next
	if done && !gs.ended {
		old, gs.current = gs.current, gs.next
	}
	gs.next = nil
	old.release()
}

// end releases the current generation. A reload that is still under way drops the next.
func (gs *generations) end() {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	gs.ended = true
	gs.current.release()
}
