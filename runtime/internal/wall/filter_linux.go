package wall

import (
	"slices"

	"golang.org/x/sys/unix"
)

// newNamespaces are the flags of clone(2) that make namespaces.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER |
	unix.CLONE_NEWPID | unix.CLONE_NEWNET

const protocolSMC = 256 // IPPROTO_SMC, Linux 6.11

// OwnPID, in an instruction of the filter, stands for the number of the process, which the child
// puts there.
const OwnPID = ^uint32(0)

// filter returns the program that decides on each system call. It runs from the child's last call
// before its exec on, so that execve is allowed: see Seal.
func (s *Rules) filter() []unix.SockFilter {
	const load, jump, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	const number, architecture, argument0, size = 0, 4, 16, 8 // offsets in seccomp_data, and the size of an argument
	var f []unix.SockFilter
	add := func(code uint16, k uint32, yes, no uint8) {
		f = append(f, unix.SockFilter{Code: code, K: k, Jt: yes, Jf: no})
	}
	deny := uint32(unix.SECCOMP_RET_TRAP)
	if s.DenyWithError {
		deny = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	}
	const allow, kill = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_KILL_PROCESS
	fail := func(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

	add(load, architecture, 0, 0)
	add(jump|unix.BPF_JEQ, arch, 1, 0)
	add(ret, kill, 0, 0)
	add(load, number, 0, 0)
	if arch == unix.AUDIT_ARCH_X86_64 {
		add(jump|unix.BPF_JGE, 0x40000000, 0, 1) // x32, which has numbers of its own
		add(ret, kill, 0, 0)
	}
	type check struct {
		call     string
		argument uint32
		code     uint16
		value    uint32
		errno    unix.Errno
	}
	var checks []check
	if s.tcp() {
		// What Landlock does not see: TCP by another name, and a connect that is a send.
		checks = append(checks,
			check{"socket", 2, unix.BPF_JEQ, unix.IPPROTO_MPTCP, unix.EPROTONOSUPPORT}, // net.Listen goes on with TCP
			check{"socket", 2, unix.BPF_JEQ, protocolSMC, unix.EPROTONOSUPPORT},
			check{"socket", 0, unix.BPF_JEQ, unix.AF_SMC, unix.EAFNOSUPPORT},
			check{"sendto", 3, unix.BPF_JSET, unix.MSG_FASTOPEN, unix.EOPNOTSUPP},
			check{"sendmsg", 2, unix.BPF_JSET, unix.MSG_FASTOPEN, unix.EOPNOTSUPP},
			check{"sendmmsg", 3, unix.BPF_JSET, unix.MSG_FASTOPEN, unix.EOPNOTSUPP},
		)
	}
	if s.Scoped || s.Syscalls != "" { // limits of others: one of CPU time ends them
		checks = append(checks, check{"prlimit64", 0, unix.BPF_JSET, ^uint32(0), unix.EPERM})
	}
	if s.Syscalls == "compute" { // signals to others by the owner of a descriptor, and sends to sockets with a name
		const fiosetown, siocspgrp = 0x8901, 0x8902
		checks = append(checks,
			check{"fcntl", 1, unix.BPF_JEQ, unix.F_SETOWN, unix.EPERM}, check{"fcntl", 1, unix.BPF_JEQ, unix.F_SETOWN_EX, unix.EPERM},
			check{"ioctl", 1, unix.BPF_JEQ, fiosetown, unix.EPERM}, check{"ioctl", 1, unix.BPF_JEQ, siocspgrp, unix.EPERM},
			check{"socketpair", 1, unix.BPF_JSET, unix.SOCK_DGRAM, unix.EPROTONOSUPPORT}, // and SOCK_RAW, which is the same
		)
	}
	for _, c := range checks {
		add(jump|unix.BPF_JEQ, numbers()[c.call], 0, 4)
		add(load, argument0+size*c.argument, 0, 0)
		add(jump|c.code, c.value, 0, 1)
		add(ret, fail(c.errno), 0, 0)
		add(load, number, 0, 0)
	}
	if s.tcp() {
		add(jump|unix.BPF_JEQ, numbers()["io_uring_setup"], 0, 1) // whose sends are out of sight
		add(ret, fail(unix.ENOSYS), 0, 0)
	}
	if s.Syscalls == "compute" && !s.listed("tgkill") && !s.listed("clone") && !s.listed("fork") && !s.listed("vfork") && !s.listed("clone3") {
		add(jump|unix.BPF_JEQ, numbers()["tgkill"], 0, 4) // Go's runtime signals its own threads
		add(load, argument0, 0, 0)
		add(jump|unix.BPF_JEQ, OwnPID, 1, 0)
		add(ret, fail(unix.EPERM), 0, 0)
		add(load, number, 0, 0)
	}
	if s.Syscalls != "" {
		if call := "clone"; !s.listed(call) { // threads; processes in a service; no namespaces
			processes := deny
			if s.Syscalls == "service" {
				processes = allow
			}
			add(jump|unix.BPF_JEQ, numbers()[call], 0, 6)
			add(load, argument0, 0, 0)
			add(jump|unix.BPF_JSET, newNamespaces, 0, 1)
			add(ret, deny, 0, 0)
			add(jump|unix.BPF_JSET, unix.CLONE_THREAD, 0, 1)
			add(ret, allow, 0, 0)
			add(ret, processes, 0, 0)
		}
		if call := "clone3"; !s.listed(call) { // its flags are out of sight; C libraries go back to clone
			add(jump|unix.BPF_JEQ, numbers()[call], 0, 1)
			add(ret, fail(unix.ENOSYS), 0, 0)
		}
		if call := "socket"; s.Syscalls == "service" && !s.listed(call) {
			add(jump|unix.BPF_JEQ, numbers()[call], 0, 6)
			add(load, argument0, 0, 0)
			add(jump|unix.BPF_JEQ, unix.AF_UNIX, 2, 0)
			add(jump|unix.BPF_JEQ, unix.AF_INET, 1, 0)
			add(jump|unix.BPF_JEQ, unix.AF_INET6, 0, 1)
			add(ret, allow, 0, 0)
			add(ret, fail(unix.EAFNOSUPPORT), 0, 0)
		}
	}
	// Runs of numbers that are decided alike, in ascending order.
	decide := func(n uint32) uint32 {
		switch name := Name(uint64(n)); {
		case name == "execve" || name != "" && s.allows(name) || name == "" && s.allows(""):
			return allow
		case name == "": // newer than this table: a program goes on without it
			return fail(unix.ENOSYS)
		}
		return deny
	}
	end := uint32(len(byNumber())) // what it decides holds for all beyond
	for n := uint32(0); n <= end; {
		action := decide(n)
		for n <= end && decide(n) == action {
			n++
		}
		if n <= end {
			add(jump|unix.BPF_JGE, n, 1, 0)
		}
		add(ret, action, 0, 0)
	}
	return f
}

// listed reports whether the user has decided on a call.
func (s *Rules) listed(call string) bool {
	return slices.Contains(s.Allow, call) || slices.Contains(s.Deny, call)
}
