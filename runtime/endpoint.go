package coppice

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/control"
)

// controlEndpoint is the control endpoint of a tree; nil = it has none.
type controlEndpoint struct {
	opened chan struct{}         // closed when server is set
	server *control.SocketServer // nil = it could not be opened
}

// endpointPatience is how long the tree waits for the file system that has the socket.
const endpointPatience = time.Second

// openEndpoint opens the endpoint that the configuration wants. If that takes long, the tree does
// not wait for it.
func openEndpoint(cfg Config, tree operated, parts operatedParts) *controlEndpoint {
	path := cfg.Control.wanted(cfg.entry)
	if path == "" {
		return nil
	}
	e := &controlEndpoint{opened: make(chan struct{})}
	go func() { // ends with the opening, which a file system may hold up
		defer close(e.opened)
		if socket, err := openSocket(path); err == nil {
			e.server = control.NewServer(newControlHandler(tree, parts, cfg.Control.ReadOnly), cfg.Logger, parts.pids)
			go e.server.Serve(socket) // ends with close
			cfg.Logger.Debug("control endpoint", "path", socket.Path)
		} else if !errors.Is(err, errors.ErrUnsupported) || path != AutoPath {
			cfg.Logger.Warn("no control endpoint: coppicectl will not find this tree", "err", err)
		}
	}()
	waitFor(e.opened)
	return e
}

func openSocket(path string) (*control.Socket, error) {
	if path == AutoPath {
		return control.ListenAuto(control.Directories(), control.Name(programName(), os.Getpid()))
	}
	return control.Listen(path)
}

// close removes the socket and ends what clients wait for.
func (e *controlEndpoint) close() {
	if e == nil {
		return
	}
	closed := make(chan struct{})
	go func() { // ends when the file system lets it
		defer close(closed)
		<-e.opened
		if e.server != nil {
			e.server.Close()
		}
	}()
	waitFor(closed)
}

func waitFor(done <-chan struct{}) {
	select {
	case <-done:
	case <-time.After(endpointPatience):
	}
}

// operateHosts passes on to the cluster what an operator asks.
func (rt *Runtime) operateHosts(ctx context.Context, what string, r *http.Request) (any, error) {
	if rt.cfg.Hosts == nil {
		return nil, fmt.Errorf("coppice: the tree is on one host alone, without Config.Hosts: %w", ErrUnsupported)
	}
	_ = r.FormValue("") // parses
	return rt.cfg.Hosts.Operate(ctx, rt, what, r.Form, func(line string) {
		rt.events.Put(Event{Time: time.Now(), Kind: HostsOperated, Why: line})
	})
}
