package coppice

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/coppice-go/coppice/runtime/internal/declaration"
)

// functions are those that have a name, by name.
var (
	functionsMu sync.Mutex
	functions   = map[string]WorkerFunc{}
)

// RegisterFunction gives a worker function a name, for [Pool.Function]. A pool of processes that
// [Runtime.StartChild] adds needs one: its workers run this program from the beginning, and the
// tree in which they look for their function has no such pool. So each process registers its
// functions before Main, Run or Start, for example in an init function, as with gob.Register.
//
// RegisterFunction panics if the name has a function already, or is not up to 64 bytes without
// space, control characters, /, @ and $. It may be called by any goroutine.
func RegisterFunction(name string, fn WorkerFunc) {
	functionsMu.Lock()
	defer functionsMu.Unlock()
	switch {
	case name == "" || len(name) > maxName || strings.ContainsFunc(name, notInName):
		panic(fmt.Sprintf("coppice: RegisterFunction: the name %q is not 1 to %d bytes without space, control characters, /, @ and $", name, maxName))
	case fn == nil:
		panic(fmt.Sprintf("coppice: RegisterFunction: the function %q is nil", name))
	case functions[name] != nil:
		panic(fmt.Sprintf("coppice: RegisterFunction: there is a function %q already", name))
	}
	functions[name] = fn
}

// run returns the function of the pool's workers; nil if this program has not registered it.
func (p Pool) run() WorkerFunc {
	if p.Function == "" {
		return p.Worker
	}
	functionsMu.Lock()
	defer functionsMu.Unlock()
	return functions[p.Function]
}

// functionLines returns the lines of the registered functions in what the program declares.
func functionLines() (lines []string) {
	functionsMu.Lock()
	defer functionsMu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(functions)) {
		lines = append(lines, functionLine(name))
	}
	return lines
}

func functionLine(name string) string {
	return declaration.Line(declaration.Functions, name, "registered")
}
