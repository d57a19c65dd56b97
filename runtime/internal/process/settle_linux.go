package process

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rlimits maps the names to this architecture's numbers.
var rlimits = map[string]int{
	"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA,
	"fsize": unix.RLIMIT_FSIZE, "memlock": unix.RLIMIT_MEMLOCK, "msgqueue": unix.RLIMIT_MSGQUEUE,
	"nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC,
	"rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO, "rttime": unix.RLIMIT_RTTIME,
	"sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

// Number returns the limit's number for setrlimit(2).
func (l Rlimit) Number() int { return rlimits[l.Name] }

// settle makes the settings that a fork cannot: limits, a nice value, LISTEN_PID. The process has
// asked to be traced and is stopped at its exec, before the first instruction of the program. When
// settle returns, the process runs, untraced; on an error it is still stopped. Only the thread that
// forked it may call settle.
func settle(pid int, cmd Command) error {
	standing, err := awaitStop(pid)
	if err != nil {
		return &OptionError{cmd.settled(), err}
	}
	if !standing {
		return nil // it was killed before that: an end like any other
	}
	for _, l := range cmd.Rlimits {
		resource, ok := rlimits[l.Name]
		if !ok {
			return &OptionError{l.String(), fmt.Errorf("%w: there is no such limit", syscall.EINVAL)}
		}
		set := &unix.Rlimit{Cur: l.Soft, Max: l.Hard}
		err := os.NewSyscallError("prlimit", unix.Prlimit(pid, resource, set, nil))
		if errors.Is(err, unix.EPERM) && cmd.Credential != nil {
			err = callAs(cmd.Credential, "prlimit", unix.SYS_PRLIMIT64, uintptr(pid), uintptr(resource), uintptr(unsafe.Pointer(set)))
			runtime.KeepAlive(set)
		}
		if err != nil {
			return &OptionError{l.String(), fmt.Errorf("%w: %s", err, l.remedy(err))}
		}
	}
	if cmd.Nice != 0 {
		err := os.NewSyscallError("setpriority", unix.Setpriority(unix.PRIO_PROCESS, pid, cmd.Nice))
		if errors.Is(err, unix.EPERM) && cmd.Credential != nil {
			err = callAs(cmd.Credential, "setpriority", unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, uintptr(pid), uintptr(cmd.Nice))
		}
		if err != nil {
			return &OptionError{fmt.Sprintf("Nice %d", cmd.Nice), fmt.Errorf("%w: %s", err, needsNice)}
		}
	}
	if cmd.ListenPID {
		if err := setListenPID(pid); err != nil {
			return &OptionError{"LISTEN_PID", err}
		}
	}
	var none unix.Sigset_t // see maskForFork
	if _, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SETSIGMASK, uintptr(pid), 8, uintptr(unsafe.Pointer(&none)), 0, 0); errno != 0 {
		return option(cmd.settled(), "ptrace", needsTracing)(errno)
	}
	if err := unix.PtraceDetach(pid); err != nil && !errors.Is(err, unix.ESRCH) { // ESRCH: it was killed
		return option(cmd.settled(), "ptrace", needsTracing)(err)
	}
	return nil
}

// awaitStop waits until a process that asked to be traced is stopped at its exec. standing is false
// if the process has ended instead; awaitStop does not reap it.
func awaitStop(pid int) (standing bool, err error) {
	var info siginfo
	for {
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_PID, uintptr(pid), uintptr(unsafe.Pointer(&info)),
			unix.WSTOPPED|unix.WEXITED|unix.WNOWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return false, os.NewSyscallError("waitid", errno)
		}
		return info.code() >= cldTrapped, nil
	}
}

// settled names the options for which the process is stopped.
func (cmd *Command) settled() string {
	var names []string
	for _, l := range cmd.Rlimits {
		names = append(names, l.String())
	}
	if cmd.Nice != 0 {
		names = append(names, fmt.Sprintf("Nice %d", cmd.Nice))
	}
	if cmd.ListenPID {
		names = append(names, "LISTEN_PID")
	}
	return strings.Join(names, ", ")
}

// remedy returns what helps if the limit cannot be set.
func (l Rlimit) remedy(err error) string {
	switch {
	case errors.Is(err, syscall.EINVAL):
		return "the soft limit is above the hard one"
	case l.Name == "nofile":
		return "to raise the hard limit takes CAP_SYS_RESOURCE, and it is at most fs.nr_open"
	}
	return "to raise the hard limit takes CAP_SYS_RESOURCE"
}
