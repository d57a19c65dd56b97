package process

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// MaxFiles is how many descriptors a process may be given.
const MaxFiles = 60

// closed stands for a number that is to be closed in the process, among those of
// [Command.Files].
const closed = ^uintptr(0)

// numbers are the descriptors of a start, in this program. The child moves them to
// where they belong, by way of the numbers above the highest of them.
type numbers struct {
	fds    []uintptr // of Command.Files, borrowed
	path   string    // what is exec'd
	opened []int     // for this start alone
}

// number finds the numbers for a start. They are to be let go of, also after an error.
//
// The child resolves /proc/self/fd/N after its own descriptors are in place. So an
// executable is held above these, and one of fds above it: then what is moved out of
// the way in the child does not meet it.
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
		// One more than the files is where the child moves what is in their way.
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
	// Above the highest are that by which the child says that it failed, and those moved.
	if need := top + 2 + moved; FileLimit() < need {
		return n, beyondLimit(need)
	}
	return n, nil
}

// above duplicates fd at the lowest free number from least on, after which the start
// takes a few more.
func (n *numbers) above(fd uintptr, least, more int) (int, error) {
	dup, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, least)
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EMFILE): // fcntl(2): from least on none is below the limit
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

// beyondLimit is the error of a start that takes more descriptors than there may be.
func beyondLimit(need int) error {
	return fmt.Errorf("%w: RLIMIT_NOFILE (ulimit -n, LimitNOFILE= of systemd) is %d, this start takes %d at least", unix.EMFILE, FileLimit(), need)
}

// rawFDs returns the numbers of files, borrowed until the caller lets go of
// them; a nil file stands for a closed number. It does not use Fd, which would
// set the open file description, shared with others, to blocking.
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
