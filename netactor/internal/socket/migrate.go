package socket

import (
	"os"
	"strings"
)

// Migrates reports whether the kernel, when a ReusePort socket is closed, gives the connections in
// its backlog to the other sockets (net.ipv4.tcp_migrate_req, Linux 5.14). Otherwise it resets
// them; this concerns the socket of a worker that is not replaced.
func Migrates() bool {
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_migrate_req")
	return err == nil && strings.TrimSpace(string(b)) != "0"
}
