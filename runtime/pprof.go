package coppice

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/stacks"
)

// PprofHandler serves the profiles of each process of the tree, as net/http/pprof serves those of
// one. The last part of the path is the profile: profile (of the CPU, for the time in the parameter
// seconds, 30 by default, at most 300), trace (of the execution, for seconds, 1 by default), heap,
// allocs, goroutine, block, mutex, threadcreate, or vars, the page of a program that imports
// expvar; any other path lists the processes. The parameter process is the name of a process, as
// web/0 or listener, or its ID; without it the master is meant:
//
//	mux.Handle("/debug/", rt.PprofHandler()) // not on http.DefaultServeMux, if expvar is imported
//	// curl 'http://127.0.0.1:9000/debug/vars?process=web/0'
//	// go tool pprof 'http://127.0.0.1:9000/debug/pprof/profile?process=web/0&seconds=10'
//
// A process takes one profile at a time, of at most 4 MiB. Profiles show the program's code: serve
// them to those who may see it. A worker that is a goroutine has the master's.
func (rt *Runtime) PprofHandler() http.Handler { return http.HandlerFunc(rt.servePprof) }

func (rt *Runtime) servePprof(w http.ResponseWriter, r *http.Request) {
	name := path.Base(r.URL.Path)
	if name == "pprof" || name == "/" || name == "." || strings.HasSuffix(r.URL.Path, "/") {
		rt.listPprof(w)
		return
	}
	number := func(parameter string, otherwise int) int {
		if n, err := strconv.Atoi(r.FormValue(parameter)); err == nil && n >= 0 {
			return n
		}
		return otherwise
	}
	otherwise := 30
	if name == stacks.Trace {
		otherwise = 1
	}
	debug, seconds := number("debug", 0), min(number("seconds", otherwise), int(stacks.MaxProfileTime/time.Second))
	q := childproto.StacksFrame{Profile: name, Debug: debug, Time: time.Duration(seconds) * time.Second}
	profile, err := rt.profile(r.Context(), r.FormValue("process"), q)
	if err != nil {
		code := http.StatusServiceUnavailable
		if errors.Is(err, ErrNoChild) || strings.Contains(err.Error(), stacks.ErrNoProfile.Error()) { // of another process it is text
			code = http.StatusNotFound
		}
		http.Error(w, err.Error(), code)
		return
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if name == stacks.Vars {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
	} else if debug == 0 || name == stacks.CPUProfile || name == stacks.Trace {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name))
	}
	_, _ = w.Write(profile) // on an error the client is gone
}

// profile takes the profile in q of the process with a name or ID.
func (rt *Runtime) profile(ctx context.Context, process string, q childproto.StacksFrame) ([]byte, error) {
	if isMaster(process) {
		return stacks.Profile(ctx, q.Profile, q.Debug, q.Time)
	}
	w, err := rt.children.named(process)
	if err != nil {
		return nil, err
	}
	data, err := w.askProfile(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("coppice: profile of %s: %w", process, err)
	}
	return data, nil
}

// listPprof lists the processes that have profiles.
func (rt *Runtime) listPprof(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "profile?process=NAME&seconds=30, trace?process=NAME&seconds=1, heap?process=NAME, allocs, goroutine, block, mutex, threadcreate, vars; NAME is one of")
	names := []string{childproto.MasterName}
	for _, c := range rt.children.all() {
		names = append(names, c.name())
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		fmt.Fprintln(w, name)
	}
}
