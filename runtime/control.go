package coppice

import (
	"os"

	"github.com/coppice-go/coppice/runtime/internal/control"
)

// AutoPath is the Control.Path that coppicectl finds: the socket program.pid.sock in
// $XDG_RUNTIME_DIR/coppice; for root in /run/coppice; otherwise in coppice-UID in the directory for
// temporary files. The directory is made with mode 0700, and must be the user's.
const AutoPath = "auto"

// A Control is the endpoint by which an operator sees and steers a running tree: HTTP and JSON over
// a Unix socket. The command coppicectl uses it, and so does
//
//	curl --unix-socket /run/coppice/shop.4711.sock http://tree/v1/workers
//
// docs/control.md describes it. Only root and the tree's user may use it, and no process of the
// tree nor one that comes from there: a worker that was taken over must not steer the tree. It
// cannot hold up or fail the tree: a path that cannot be used is a warning in the log.
type Control struct {
	// Path is the socket's; its directory must exist. Zero = [AutoPath] with Main and Serve; with
	// Run and Start there is no endpoint. The environment variable COPPICE_CONTROL overrides it: a
	// path, auto or off.
	Path string

	Off bool // no endpoint

	// ReadOnly refuses what changes the tree, and profiles, which slow a process down.
	ReadOnly bool
}

// A ControlOptions is for [Runtime.ControlHandler].
type ControlOptions struct {
	// Writes allows what changes the tree, and profiles, which slow a process down.
	Writes bool

	// Hosts are names under which browsers may reach the handler, besides localhost and addresses.
	Hosts []string
}

// wanted returns the path of the endpoint; "" = none.
func (c Control) wanted(entry string) string {
	switch v := os.Getenv(control.Variable); {
	case v == "off":
		return ""
	case v != "":
		return v
	case c.Off:
		return ""
	case c.Path == "" && entry == "Main":
		return AutoPath
	}
	return c.Path
}
