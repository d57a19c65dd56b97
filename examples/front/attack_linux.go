package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	coppice "github.com/coppice-go/coppice/runtime"
)

// tryAll tries what a hostile worker would, and prints what stopped it.
func tryAll(_ context.Context, w *coppice.Worker) error {
	master := os.Getppid()
	read := func(path string) func() error {
		return func() error { _, err := os.ReadFile(path); return err }
	}
	var lines strings.Builder
	for _, a := range []struct {
		does, wall string
		try        func() error
	}{
		{"read the TLS key", "User, NoFiles", read(os.Getenv("KEY"))},
		{"read /proc/1/environ", "User, NoFiles", read("/proc/1/environ")},
		{"write a file", "NoFiles", func() error { return os.WriteFile("/tmp/front", nil, 0o600) }},
		{"run a program", "Syscalls", func() error {
			_, err := os.StartProcess("/bin/sh", []string{"sh"}, &os.ProcAttr{})
			return err
		}},
		{"replace itself", "Syscalls", func() error { return unix.Exec("/bin/sh", []string{"sh"}, nil) }},
		{"connect out", "NoNetwork, Syscalls", func() error { _, err := net.Dial("tcp", "192.0.2.1:80"); return err }},
		{"bind a port", "NoNetwork, Syscalls", func() error { _, err := net.Listen("tcp", "127.0.0.1:8081"); return err }},
		{"have the master bind a port", "Pool.Listen", func() error { _, err := w.Listen("tcp", "127.0.0.1:8081"); return err }},
		{"have the master make a socket", "Pool.Listen", func() error { _, err := w.Listen("unix", "/etc/front.sock"); return err }},
		{"signal the master", "User, Scoped, Syscalls", func() error { return unix.Kill(master, unix.SIGKILL) }},
		{"trace the master", "User, NoFiles, Syscalls", func() error { return unix.PtraceAttach(master) }},
		{"be root in a user namespace", "Syscalls", func() error { return unix.Unshare(unix.CLONE_NEWUSER) }},
		{"take 64 GiB", "Rlimits as", func() error {
			_, err := unix.Mmap(-1, 0, 64<<30, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
			return err
		}},
		{"take all descriptors", "Rlimits nofile", func() error {
			var fds []int
			defer func() {
				for _, fd := range fds {
					_ = unix.Close(fd)
				}
			}()
			for len(fds) < 1000 {
				fd, err := unix.Dup(0)
				if err != nil {
					return err
				}
				fds = append(fds, fd)
			}
			return nil
		}},
	} {
		said := "IT SUCCEEDED"
		if err := a.try(); err != nil {
			said = err.Error()
		}
		fmt.Fprintf(&lines, "%-30s %-24s %s\n", a.does, a.wall, said)
	}
	fmt.Print(lines.String())
	return w.Ready()
}
