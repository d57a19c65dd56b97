package coppice

import (
	"errors"
	"net"
	"os"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/control"
)

// controlEndpoint is the control endpoint of a tree; nil = it has none.
type controlEndpoint struct {
	opened chan struct{} // closed when the fields below are set
	ln     *net.UnixListener
	server *control.SocketServer // nil = it could not be opened
	path   string
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
	e := &controlEndpoint{opened: make(chan struct{}), path: path}
	go func() { // ends with the opening, which a file system may hold up
		defer close(e.opened)
		if err := e.open(); err == nil {
			e.server = control.NewServer(newControlHandler(tree, parts, cfg.Control.ReadOnly), cfg.Logger, func() []int { return pidsOf(tree.Snapshot()) })
			go e.server.Serve(e.ln) // ends with close
			cfg.Logger.Debug("control endpoint", "path", e.path)
		} else if !errors.Is(err, errors.ErrUnsupported) || path != AutoPath {
			cfg.Logger.Warn("no control endpoint: coppicectl will not find this tree", "err", err)
		}
	}()
	waitFor(e.opened)
	return e
}

func (e *controlEndpoint) open() (err error) {
	if e.path == AutoPath {
		e.ln, e.path, err = control.ListenAuto(control.Directories(), control.Name(programName(), os.Getpid()))
	} else {
		e.ln, err = control.Listen(e.path)
	}
	return err
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
			control.Remove(e.ln, e.path)
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

// pidsOf returns the PIDs of the processes of a tree, without the master.
func pidsOf(tree Tree) (pids []int) {
	tree.Walk(func(t Tree) {
		if t.PID != 0 && t.Role != RoleMaster {
			pids = append(pids, t.PID)
		}
	})
	return pids
}
