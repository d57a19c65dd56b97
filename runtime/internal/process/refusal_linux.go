package process

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// nowhere is a path that is too long for any program: its exec fails with ENAMETOOLONG, an errno of
// no earlier step.
var nowhere = strings.Repeat("/", unix.PathMax)

// A step is a part of a start between fork and exec that the system may refuse.
type step struct {
	taken func(to, from *syscall.ProcAttr) // adds the step to a start that has the earlier steps
	error func(err error) error            // returns an error with what was refused, and a remedy
}

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
	needsTracing   = "such values are set while the process is traced: nothing may trace the master (strace -f, a debugger), and what it runs under must allow ptrace"
)

// steps returns the steps of a start of cmd before its exec, in order.
func (cmd *Command) steps() (all []step) {
	add := func(taken func(to, from *syscall.ProcAttr), err func(error) error) {
		all = append(all, step{taken, err})
	}
	add(func(_, _ *syscall.ProcAttr) {}, call("clone or execve", needsClone))
	add(func(to, from *syscall.ProcAttr) { to.Sys.PidFD = from.Sys.PidFD }, call("clone with CLONE_PIDFD", needsPidfd))
	if cmd.Cgroup != nil {
		add(func(to, from *syscall.ProcAttr) { to.Sys.UseCgroupFD, to.Sys.CgroupFD = true, from.Sys.CgroupFD },
			option("Cgroup "+cmd.Cgroup.Name(), "clone3", needsCgroup))
	}
	add(func(to, _ *syscall.ProcAttr) { to.Sys.Setpgid = true }, call("setpgid", needsGroup))
	if c := cmd.Credential; c != nil {
		add(func(to, _ *syscall.ProcAttr) { to.Sys.Credential = c },
			option(fmt.Sprintf("user %d, group %d, groups %d", c.Uid, c.Gid, c.Groups), "setgroups, setgid or setuid", needsUser))
	}
	if cmd.dir != "" {
		add(func(to, from *syscall.ProcAttr) { to.Dir = from.Dir },
			func(err error) error { return &OptionError{"Dir " + cmd.Dir, os.NewSyscallError("chdir", err)} })
	}
	if cmd.DeathSignal != 0 {
		add(func(to, from *syscall.ProcAttr) { to.Sys.Pdeathsig = from.Sys.Pdeathsig }, call("prctl with PR_SET_PDEATHSIG", needsDeath))
	}
	add(func(to, from *syscall.ProcAttr) { to.Files = from.Files }, call("dup3 or fcntl", needsFiles))
	if cmd.settles() {
		add(func(to, _ *syscall.ProcAttr) { to.Sys.Ptrace = true }, option(cmd.settled(), "ptrace", needsTracing))
	}
	return all
}

// lacking are errors of a shortage, which do not show that a step is refused.
var lacking = []syscall.Errno{syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.ETXTBSY}

// explain returns the error of the step of a start of cmd that failed. The kernel returns one errno
// for everything from fork to exec, and a seccomp profile may use any. So explain tries the start
// again with one step, with two, and so on, and with the program nowhere: the first step with which
// it fails otherwise was refused. The launcher calls it.
func explain(err error, cmd Command, path string, attr *syscall.ProcAttr) error {
	errno, ok := errors.AsType[syscall.Errno](err)
	switch {
	case !ok:
		return err
	case errno == syscall.EAGAIN:
		return tooMany(err)
	case slices.Contains(lacking, errno):
		return err
	}
	try := &syscall.ProcAttr{Env: []string{}, Sys: &syscall.SysProcAttr{}}
	for _, s := range cmd.steps() {
		s.taken(try, attr)
		_, tried := syscall.ForkExec(nowhere, []string{nowhere}, try)
		if e, ok := errors.AsType[syscall.Errno](tried); ok && e != syscall.ENAMETOOLONG && !slices.Contains(lacking, e) {
			return s.error(e)
		}
	}
	return reason(err, path, cmd.dir)
}

func tooMany(err error) error {
	return fmt.Errorf("%w: too many processes (RLIMIT_NPROC, pids.max, threads-max)", err)
}

// withoutPidfd returns the error of a kernel that ignores CLONE_PIDFD.
func withoutPidfd() error { return call("clone with CLONE_PIDFD", needsPidfd)(unix.ENOSYS) }
