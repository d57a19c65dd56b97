package socket

import (
	"os"
	"strings"
)

// Migrates reports whether the kernel gives what waits in the backlog of a ReusePort socket that is
// closed to the others (net.ipv4.tcp_migrate_req, Linux 5.14). Else it is reset: what a
// worker leaves behind that nobody replaces.
func Migrates() bool {
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_migrate_req")
	return err == nil && strings.TrimSpace(string(b)) != "0"
}
