package child

import (
	"net/http"

	"github.com/coppice-go/coppice/runtime/internal/httpdrain"
	"github.com/coppice-go/coppice/tracing"
)

// DrainOf returns the drain of server, the same for each Serve of it.
func (s *Session) DrainOf(server *http.Server) *httpdrain.Drain {
	s.serverMu.Lock()
	defer s.serverMu.Unlock()
	d := s.servers[server]
	if d == nil {
		if server.ConnContext == nil {
			server.ConnContext = tracing.ConnContext
		}
		d = httpdrain.New(server, s.countForcedEarly, s.CountRequests)
		s.servers[server] = d
	}
	return d
}

// CloseIdle closes the idle connections of a server that drains, the last of them at the latest when
// the child's time for these is over.
func (s *Session) CloseIdle(d *httpdrain.Drain) { d.CloseIdle(s.idleGrace, s.idleLimit) }
