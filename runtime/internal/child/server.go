package child

import (
	"crypto/tls"
	"net/http"

	"github.com/coppice-go/coppice/runtime/internal/httpdrain"
	"github.com/coppice-go/coppice/tracing"
)

// DrainOf returns the drain of server, the same for each Serve of it. conf, if not nil, is the TLS
// configuration that the server has until EndDrainOf.
func (s *Session) DrainOf(server *http.Server, conf *tls.Config) *httpdrain.Drain {
	s.serverMu.Lock()
	defer s.serverMu.Unlock()
	d := s.servers[server]
	if d == nil {
		d = httpdrain.New(server, conf, tracing.ConnContext, s.countForcedEarly, s.CountRequests, &s.gate)
		if s.figures != nil {
			d.Measure(s.figures.Served)
		}
		if s.gate.timed != nil {
			d.Time()
		}
		s.servers[server] = d
	}
	d.Retain()
	return d
}

// EndDrainOf undoes one DrainOf. The last one restores the server, if no connection is open.
func (s *Session) EndDrainOf(server *http.Server, d *httpdrain.Drain) {
	s.serverMu.Lock()
	defer s.serverMu.Unlock()
	if d.Release() {
		delete(s.servers, server)
	}
}

// CloseIdle closes the idle connections of a server that drains. It closes the last one when the
// child's time limit for idle connections ends, or earlier.
func (s *Session) CloseIdle(d *httpdrain.Drain) { d.CloseIdle(s.idleGrace, s.idleLimit) }
