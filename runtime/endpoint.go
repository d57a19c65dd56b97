package coppice

import (
	"errors"
	"net"
	"os"

	"github.com/coppice-go/coppice/runtime/internal/control"
)

// controlEndpoint is the control endpoint of a tree; nil = it has none.
type controlEndpoint struct {
	ln     *net.UnixListener
	server *control.SocketServer
	path   string
}

// openEndpoint opens the endpoint that the configuration wants.
func openEndpoint(cfg Config, tree operated, parts operatedParts) *controlEndpoint {
	want := cfg.Control.wanted(cfg.entry)
	if want == "" {
		return nil
	}
	e := &controlEndpoint{path: want}
	var err error
	if want == AutoPath {
		e.ln, e.path, err = control.ListenAuto(control.Directories(), control.Name(programName(), os.Getpid()))
	} else {
		e.ln, err = control.Listen(want)
	}
	if err != nil {
		if !errors.Is(err, errors.ErrUnsupported) || want != AutoPath {
			cfg.Logger.Warn("no control endpoint: coppicectl will not find this tree", "err", err)
		}
		return nil
	}
	e.server = control.NewServer(newControlHandler(tree, parts, cfg.Control.ReadOnly), cfg.Logger, func() []int { return pidsOf(tree.Snapshot()) })
	go e.server.Serve(e.ln) // ends with close
	cfg.Logger.Debug("control endpoint", "path", e.path)
	return e
}

// close removes the socket and ends what clients wait for.
func (e *controlEndpoint) close() {
	if e != nil {
		control.Remove(e.ln, e.path)
		e.server.Close()
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
