package control

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
)

// Variable is the environment variable that overrides where the endpoint is: a path, auto or off.
const Variable = "COPPICE_CONTROL"

// Suffix is how the names of sockets end.
const Suffix = ".sock"

// Directories returns the directories in which trees of this user put their sockets, the preferred
// one first.
func Directories() []string {
	var dirs []string
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		dirs = append(dirs, filepath.Join(dir, "coppice"))
	}
	if os.Geteuid() == 0 {
		dirs = append(dirs, "/run/coppice")
	}
	return append(dirs, filepath.Join(os.TempDir(), "coppice-"+strconv.Itoa(os.Geteuid())))
}

// Transport returns a transport whose connections all go to the socket at a path, whatever host a
// request names.
func Transport(path string) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
}

// Name returns the name of this program's socket: program.pid.sock. The address of a socket has at
// most 107 bytes, of which a long name of a program gets 40.
func Name(program string, pid int) string {
	program = filepath.Base(program)
	return program[:min(len(program), 40)] + "." + strconv.Itoa(pid) + Suffix
}
