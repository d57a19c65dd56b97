package coppice

import (
	"github.com/coppice-go/coppice/runtime/internal/wall"
)

// A Sandbox is the walls around a process: what it may open, reach, call and become, whatever it
// asks for. They hold for all that the process starts, and nothing takes them away again. Linux
// only, and for other programs as for workers:
//
//	coppice.Environment{User: "nobody", Sandbox: coppice.Sandbox{
//		NoFiles: true, NoNetwork: true, NoCapabilities: true, Scoped: true, Syscalls: "compute",
//	}}
//
// That worker serves, with connections and files that the master hands to it, and can do nothing
// else.
//
// All is in effect before the program's first instruction, but for one thing: see Syscalls. What
// the system lacks fails the start with an error that names the field, unless BestEffort is set.
// The workers of a pool with a Sandbox may listen on what the tree's Listeners have alone: see
// [Pool.Listen]. docs/security.md says what each wall stops, and what nothing here does.
type Sandbox struct {
	// NoNewPrivileges: nothing that the process executes gets rights that it lacks, set-user-ID or
	// not. It is on if any other field is set.
	NoNewPrivileges bool

	// NoFiles closes the file system, but for the paths in Read, Write and Execute, each with all
	// below it; any of them closes the rest. They are absolute, and are opened at each start, with
	// the master's rights. Write includes reading, making, renaming and removing, but no device
	// nodes; Execute includes reading. The process's own program can always be executed; a script
	// or a program with shared libraries needs its interpreter and these in Execute. What is open
	// already stays open, sockets with a path can still be connected to, and the attributes of
	// files can be read. The process traces none outside. Landlock, Linux 6.2.
	NoFiles bool
	Read    []string
	Write   []string
	Execute []string

	// NoTCP closes connect and bind of TCP, but for the ports in Connect and Bind; either of them
	// closes the rest. UDP stays open. Landlock, Linux 6.7, and seccomp: there is no MPTCP, SMC,
	// TCP Fast Open or io_uring, by which programs come around it.
	NoTCP   bool
	Connect []uint16
	Bind    []uint16

	// Scoped: it signals no process and connects to no abstract Unix socket but of its own and of
	// what it has started, and limits no other (prlimit(2)); siblings are as far as the master.
	// Landlock, Linux 6.12, and seccomp.
	Scoped bool

	// NoNetwork puts the process into a network namespace of its own, which has no interface but a
	// loopback that is down. Sockets that it is given work on. Takes CAP_SYS_ADMIN or, without
	// User, Group and Groups, a user namespace, in which it has its own number alone. Root leaves it
	// again unless NoCapabilities, Syscalls or a User takes the right away.
	NoNetwork bool

	// Capabilities are all that the process has and can ever have, by names as in
	// capabilities(7) without CAP_, as "net_bind_service": it has them also as another User. With
	// NoCapabilities alone it has none.
	NoCapabilities bool
	Capabilities   []string

	// Syscalls is a set of system calls: "service", what a Go network server takes, which starts
	// programs too, with sockets of IPv4, IPv6 and Unix; or "compute", the same without making,
	// connecting or binding sockets, signals to others, and other processes. Allow adds calls by
	// their names as in syscalls(2), Deny takes some away; without a profile Allow has all that are
	// allowed, or Deny all that are not. Seccomp; amd64 and arm64.
	//
	// A call that is denied ends the process by SIGSYS, and the exit reason of a Go program names
	// it. With DenyWithError it answers EPERM.
	//
	// A filter cannot deny the execve that starts the program. A worker denies itself further ones,
	// in one of its first inits. Of another program list in Execute what it may execute.
	Syscalls      string
	Allow         []string
	Deny          []string
	DenyWithError bool

	// BestEffort starts the process without the walls that the system lacks. The log has one line
	// with them at each start.
	BestEffort bool
}

func (s Sandbox) spec() *wall.Rules { w := wall.Rules(s); return &w }

// String returns the walls in one line, "" = none.
func (s Sandbox) String() string { return s.spec().String() }

func (s Sandbox) validate(bad reportInvalid, path string, program bool) {
	s.spec().Validate(func(field string, value any, why string) { bad(path, "Environment.Sandbox."+field, value, why) }, program)
}
