package fdipc

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/coppice-go/coppice/fdipc/internal/inherit"
)

var inherited struct {
	sync.Mutex
	taken bool
}

// Inherited returns the channel this process was started with, and the variables its parent gave to
// [Environ]. f is owned by the caller, for [New]; it is returned once, a second call returns
// an error. Without a channel ok is false and the error nil.
//
// The marker variables were taken out of the environment, and the descriptor made close-on-exec,
// when this package's lowest part was initialized: no process that is started from here inherits
// either. An error wraps [ErrInherit] and names the variable that is wrong.
func Inherited() (f *os.File, env map[string]string, ok bool, err error) {
	if inherit.Bad != "" {
		return nil, nil, false, fmt.Errorf("fdipc: %w: %s", ErrInherit, inherit.Bad)
	}
	if !inherit.Set {
		return nil, nil, false, nil
	}
	inherited.Lock()
	defer inherited.Unlock()
	if inherited.taken {
		return nil, nil, false, fmt.Errorf("fdipc: %w: %s was taken before", ErrInherit, inherit.Channel)
	}
	inherited.taken = true
	env = make(map[string]string, len(inherit.Env))
	for k, v := range inherit.Env {
		env[strings.TrimPrefix(k, inherit.Child)] = v
	}
	return os.NewFile(uintptr(inherit.FD), "fdipc"), env, true, nil
}

// InheritedVar returns one of the variables that [Inherited] returns, without taking the channel.
// ok is false if there is none of that name, or no channel.
func InheritedVar(name string) (value string, ok bool) {
	if inherit.Bad != "" || !inherit.Set {
		return "", false
	}
	value, ok = inherit.Env[inherit.Child+name]
	return value, ok
}

// Environ returns the marker variables for a child in which fd is its end of a [Socketpair], to be
// appended to the child's environment. vars are further variables for it; their names are
// put behind "COPPICE_CHILD_", and [Inherited] there returns them without it.
func Environ(fd int, vars map[string]string) []string {
	env := []string{inherit.Channel + "=" + strconv.Itoa(fd)}
	for _, k := range slices.Sorted(maps.Keys(vars)) {
		env = append(env, inherit.Child+k+"="+vars[k])
	}
	return env
}
