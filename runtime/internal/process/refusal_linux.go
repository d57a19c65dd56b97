package process

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// call returns the error of a system call that every start needs.
func call(name, remedy string) func(error) error {
	return func(err error) error { return fmt.Errorf("%w: %s", os.NewSyscallError(name, err), remedy) }
}

// option returns the error of an option that is not honoured.
func option(name, call, remedy string) func(error) error {
	return func(err error) error {
		return &OptionError{name, fmt.Errorf("%w: %s", os.NewSyscallError(call, err), remedy)}
	}
}

// Remedies.
const (
	needsClone     = "what this program runs under (a seccomp profile, a container) must let it start processes"
	needsPidfd     = "Linux 5.4 or later is needed, and a seccomp profile that allows clone with CLONE_PIDFD and waitid with P_PIDFD"
	needsGroup     = "a process is stopped and killed with its group: a seccomp profile must allow setpgid"
	needsDeath     = "no process may outlive its master: a seccomp profile must allow prctl with PR_SET_PDEATHSIG"
	needsFiles     = "a seccomp profile must allow them"
	needsCgroup    = "it takes Linux 5.7, clone3, and the right to write cgroup.procs there and in the common ancestor"
	needsUser      = "it takes CAP_SETUID and CAP_SETGID, and a number that the user namespace knows"
	needsNice      = "a value below the master's takes CAP_SYS_NICE, or a limit of nice (RLIMIT_NICE)"
	needsNamespace = "it takes CAP_SYS_ADMIN, or user namespaces for all (user.max_user_namespaces) and no User; a container may refuse it"
	needsCaps      = "the master cannot give what it lacks"
	needsSeccomp   = "it takes a kernel with CONFIG_SECCOMP_FILTER, and a seccomp profile that allows seccomp"
)

func tooMany(err error) error {
	return fmt.Errorf("%w: too many processes (RLIMIT_NPROC, pids.max, threads-max)", err)
}

// withoutPidfd returns the error of a kernel that ignores CLONE_PIDFD.
func withoutPidfd() error { return call("clone with CLONE_PIDFD", needsPidfd)(unix.ENOSYS) }
