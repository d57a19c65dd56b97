package process

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// MaxFiles is the maximum length of [Command.Files].
const MaxFiles = 60

// closed marks a nil file of [Command.Files], whose number is closed in the process.
const closed = ^uintptr(0)

// numbers are the descriptors of a start, in this program. The child moves them to their numbers,
// by way of numbers above the highest of them.
type numbers struct {
	fds    []uintptr // of Command.Files, borrowed
	path   string    // the path to exec
	opened []int     // duplicates for this start
}

// number finds the numbers for a start. The caller closes them, also after an error.
//
// The child resolves /proc/self/fd/N after its descriptors are in place. So N, of the executable,
// is above the numbers of these, and one of fds is above N: then the numbers to which the child
// moves descriptors temporarily are above N too.
func number(cmd Command) (n numbers, err error) {
	n.path = cmd.Path
	if n.fds, err = rawFDs(cmd.Files); err != nil {
		return n, err
	}
	if cmd.Executable != nil {
		rc, err := cmd.Executable.file.SyscallConn()
		if err != nil {
			return n, err
		}
		// The child temporarily moves descriptors to the numbers from len(n.fds)+1 on.
		fd := -1
		if cerr := rc.Control(func(old uintptr) { fd, err = n.above(old, len(n.fds)+2, 2) }); cerr != nil || err != nil {
			return n, errors.Join(cerr, err)
		}
		n.path = fmt.Sprintf("/proc/self/fd/%d", fd)
		for i, old := range n.fds {
			if old == closed {
				continue
			}
			raised, err := n.above(old, fd+1, 1)
			if err != nil {
				return n, err
			}
			n.fds[i] = uintptr(raised)
			break
		}
	}
	top, moved := len(n.fds), 0
	for i, fd := range n.fds {
		if fd == closed {
			continue
		}
		top = max(top, int(fd))
		if fd < uintptr(i) {
			moved++
		}
	}
	// Above the highest are the moved descriptors, and one number is to spare.
	if need := top + 2 + moved; FileLimit() < need {
		return n, beyondLimit(need)
	}
	return n, nil
}

// above duplicates fd at the lowest free number from least on. more is how many further numbers the
// start needs, for the error.
func (n *numbers) above(fd uintptr, least, more int) (int, error) {
	dup, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, least)
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EMFILE): // fcntl(2): there is no free number from least to the limit
		return -1, beyondLimit(max(least, FileLimit()) + 1 + more)
	case err != nil:
		return -1, os.NewSyscallError("fcntl", err)
	}
	n.opened = append(n.opened, dup)
	return dup, nil
}

func (n *numbers) close() {
	for _, fd := range n.opened {
		_ = unix.Close(fd)
	}
}

// FileLimit returns how many descriptors this program may have now.
func FileLimit() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1 << 20
	}
	return int(min(l.Cur, 1<<30))
}

// beyondLimit returns the error of a start that needs more descriptors than the limit allows.
func beyondLimit(need int) error {
	return fmt.Errorf("%w: RLIMIT_NOFILE (ulimit -n, LimitNOFILE= of systemd) is %d, this start takes %d at least", unix.EMFILE, FileLimit(), need)
}

// rawFDs returns the numbers of files; closed for a nil file. The numbers are valid while the
// caller holds files. It does not use Fd, which would set the open file description, shared with
// other processes, to blocking.
func rawFDs(files []*os.File) ([]uintptr, error) {
	fds := make([]uintptr, len(files))
	for i, f := range files {
		if f == nil {
			fds[i] = closed
			continue
		}
		rc, err := f.SyscallConn()
		if err != nil {
			return nil, err
		}
		if err := rc.Control(func(fd uintptr) { fds[i] = fd }); err != nil {
			return nil, err
		}
	}
	return fds, nil
}
