package stacks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/pprof"
	"runtime/trace"
	"strings"
	"sync"
	"time"
)

// MaxProfile bounds a profile of one process, in bytes. A compressed one is some 100 KiB.
const MaxProfile = 4 << 20

// CPUProfile and Trace are the names of what takes time: a CPU profile, and an execution trace
// (runtime/trace).
const (
	CPUProfile = "profile"
	Trace      = "trace"
)

// Vars is the name of the page of package expvar. It is that of http.DefaultServeMux, on which
// expvar puts it: a program that does not import expvar has none.
const Vars = "vars"

// MaxProfileTime bounds the time of a CPU profile.
const MaxProfileTime = 5 * time.Minute

// The errors of Profile.
var (
	ErrNoProfile = errors.New("no such profile")
	ErrBusy      = errors.New("another profile of this process is being taken")
)

// profiling is held while a profile is taken.
var profiling sync.Mutex

// Profile takes a profile of this process, by its name in runtime/pprof, or a CPU profile or
// a trace that lasts d or until ctx ends, or the page of expvar. debug is that of
// pprof.Profile.WriteTo. One is taken at a time.
func Profile(ctx context.Context, name string, debug int, d time.Duration) ([]byte, error) {
	if !profiling.TryLock() {
		return nil, ErrBusy
	}
	defer profiling.Unlock()
	var b bytes.Buffer
	switch name {
	case Vars:
		if err := vars(&b); err != nil {
			return nil, err
		}
	case CPUProfile:
		if err := pprof.StartCPUProfile(&b); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBusy, err)
		}
		select {
		case <-time.After(min(d, MaxProfileTime)):
		case <-ctx.Done():
		}
		pprof.StopCPUProfile()
	case Trace:
		to := boundedBuffer{&b, make(chan struct{})}
		if err := trace.Start(to); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBusy, err)
		}
		began := time.Now()
		select {
		case <-time.After(min(d, MaxProfileTime)):
		case <-ctx.Done():
		case <-to.full:
		}
		trace.Stop()
		if to.isFull() {
			return nil, fmt.Errorf("the trace has more than %d bytes after %v: take one of less time", MaxProfile, time.Since(began).Round(time.Millisecond))
		}
	default:
		p := pprof.Lookup(name)
		if p == nil {
			return nil, fmt.Errorf("%w: %q", ErrNoProfile, name)
		}
		if err := p.WriteTo(&b, debug); err != nil {
			return nil, err
		}
	}
	if b.Len() > MaxProfile {
		return nil, fmt.Errorf("the profile has %d bytes, at most %d", b.Len(), MaxProfile)
	}
	return b.Bytes(), nil
}

// boundedBuffer takes MaxProfile bytes at most. One goroutine writes.
type boundedBuffer struct {
	b    *bytes.Buffer
	full chan struct{} // closed when there was more
}

func (w boundedBuffer) Write(p []byte) (int, error) {
	switch {
	case w.isFull():
	case w.b.Len()+len(p) > MaxProfile:
		close(w.full)
	default:
		w.b.Write(p)
	}
	return len(p), nil
}

func (w boundedBuffer) isFull() bool {
	select {
	case <-w.full:
		return true
	default:
		return false
	}
}

// vars writes the page of expvar, whose functions are the program's and may panic.
func vars(b *bytes.Buffer) (err error) {
	r, err := http.NewRequest(http.MethodGet, "/debug/vars", nil)
	if err != nil {
		return err
	}
	h, pattern := http.DefaultServeMux.Handler(r)
	if !strings.HasSuffix(pattern, "/debug/vars") {
		return fmt.Errorf("%w: %q: the program does not import expvar", ErrNoProfile, Vars)
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("expvar panicked: %v", p)
		}
	}()
	h.ServeHTTP(&Page{b, make(http.Header)}, r)
	return nil
}

// A Page is the ResponseWriter of a page that is kept.
type Page struct {
	*bytes.Buffer
	header http.Header
}

// NewPage returns an empty page.
func NewPage() *Page { return &Page{new(bytes.Buffer), make(http.Header)} }

// Header returns the page's header.
func (p *Page) Header() http.Header { return p.header }

// WriteHeader does nothing: a page tells an error in its text.
func (p *Page) WriteHeader(int) {}
