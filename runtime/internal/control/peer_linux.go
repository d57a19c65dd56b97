package control

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Peer is the process that connected to the socket, as the kernel vouches for it (unix(7),
// SO_PEERCRED); PID is 0 for a process of another PID namespace.
type Peer struct{ PID, UID int }

// errPeer is why a peer may not use the endpoint.
var errPeer = errors.New("control: not allowed")

// maxAncestors bounds the walk from a process to the ancestor of all. A process with more of them
// is refused.
const maxAncestors = 64

// checkPeer returns the peer of a connection, or an error that wraps errPeer if it must not use the
// endpoint: another user than root and this process's, or a process below this one. A process that
// has left its parent is found by its process group, its session if this process leads one, and its
// cgroup. tree returns the PIDs of the tree's processes, which lead process groups.
func checkPeer(c *net.UnixConn, tree func() []int) (Peer, error) {
	cred, pidfd, err := credentials(c)
	if err != nil {
		return Peer{}, err
	}
	if pidfd >= 0 {
		defer unix.Close(pidfd)
	}
	p := Peer{int(cred.Pid), int(cred.Uid)}
	if p.UID != 0 && p.UID != os.Geteuid() {
		return p, fmt.Errorf("%w: user %d is neither root nor the tree's user %d", errPeer, p.UID, os.Geteuid())
	}
	if p.PID == 0 || p.PID == os.Getpid() {
		return p, nil
	}
	if err := outside(p.PID, tree()); err != nil {
		return p, err
	}
	if pidfd >= 0 && unix.PidfdSendSignal(pidfd, 0, nil, 0) == unix.ESRCH {
		return p, fmt.Errorf("%w: process %d has ended, and what was read may be about another", errPeer, p.PID)
	}
	return p, nil
}

// credentials returns the peer's credentials, and a pidfd for it, or -1 before Linux 6.5.
func credentials(c *net.UnixConn) (cred *unix.Ucred, pidfd int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, -1, err
	}
	cerr := raw.Control(func(fd uintptr) {
		if cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err != nil {
			return
		}
		var e error
		if pidfd, e = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD); e != nil {
			pidfd = -1
		}
	})
	return cred, pidfd, errors.Join(cerr, err)
}

// outside returns an error if the process is one of the tree, or comes from one.
func outside(pid int, tree []int) error {
	if err := unrelated(os.Getpid(), pid, tree, statOf); err != nil {
		return fmt.Errorf("%w: process %d %w", errPeer, pid, err)
	}
	mine, theirs := CgroupOf(os.Getpid()), CgroupOf(pid)
	if theirs == mine || theirs == "" {
		return nil
	}
	for _, p := range tree {
		if c := CgroupOf(p); c != "" && c != mine && (theirs == c || strings.HasPrefix(theirs, c+"/")) {
			return fmt.Errorf("%w: process %d is in the cgroup of a process of the tree", errPeer, pid)
		}
	}
	return nil
}

// unrelated returns an error if a process, or an ancestor of it, is the master or a process of the
// tree, or is in the process group of one, or in the session that the master leads.
func unrelated(master, pid int, tree []int, statOf func(pid int) (procStat, error)) error {
	self, err := statOf(master)
	if err != nil {
		return err
	}
	for range maxAncestors {
		if pid == master || slices.Contains(tree, pid) {
			return errors.New("is a process of the tree, or comes from one")
		}
		if pid <= 1 { // of another PID namespace, or the ancestor of all
			return nil
		}
		st, err := statOf(pid)
		if errors.Is(err, errHidden) {
			return nil
		}
		if err != nil {
			return err
		}
		if slices.Contains(tree, st.group) || self.session == master && st.session == master {
			return errors.New("is of the process group or the session of the tree, or comes from there")
		}
		pid = st.parent
	}
	return fmt.Errorf("has more than %d ancestors", maxAncestors)
}

type procStat struct{ parent, group, session int }

// errHidden is the error for a process of another user that /proc does not show (hidepid of
// proc(5), ProtectProc of systemd.exec(5)): an operator's login, or root. What a process of the
// tree that runs as another user starts is that user's, and refused for that.
var errHidden = errors.New("is hidden")

// statOf reads proc_pid_stat(5).
func statOf(pid int) (st procStat, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) && !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
		return st, errHidden
	}
	if err != nil {
		return st, err
	}
	_, err = fmt.Sscanf(string(b[bytes.LastIndexByte(b, ')')+1:]), " %1s %d %d %d", new(string), &st.parent, &st.group, &st.session)
	return st, err
}

// CgroupOf returns a process's path in the unified hierarchy (cgroups(7)), or "".
func CgroupOf(pid int) string {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path
		}
	}
	return ""
}
