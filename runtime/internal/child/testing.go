package child

import (
	"slices"

	"github.com/coppice-go/coppice/netactor/listen"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// The functions below are for tests of package runtime.

// Standalone returns a worker that has no master and is ready.
func Standalone(cfg Config) *Session {
	s := New(cfg)
	s.netListeners = listen.New(listen.Config{})
	s.ready = func() error { return nil }
	s.spare.current.Store(&childproto.AssignFrame{Name: "web/0"})
	close(s.equipped)
	return s
}

// EndIdleGrace ends the time for which all idle connections are kept.
func (s *Session) EndIdleGrace() { s.endIdleGrace() }

// Forced returns how many connections the drain has cut.
func (s *Session) Forced() int64 { return s.forced.Load() }

// ReportLinksLost tells the master that each open link is lost.
func (s *Session) ReportLinksLost(err error) {
	s.linkMu.Lock()
	links := slices.Clone(s.links)
	s.linkMu.Unlock()
	for _, l := range links {
		s.reportNoLink(l.to, err)
	}
}
