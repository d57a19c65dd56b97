package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/runtime/internal/image"
	"github.com/coppice-go/coppice/runtime/internal/wall"
)

// pidRoom is the room for the number of a process in decimal, and a zero.
const pidRoom = 11

// A childCall is a system call that a child makes between its fork and its exec.
type childCall struct {
	number uintptr
	args   [5]uintptr
	want   uintptr           // the result that is no failure; 0 = any
	error  func(error) error // of the start if the call fails
	spare  int               // if not 0, a failure leaves out so many calls, this one included, and the start goes on

	without bool // if it fails, the start begins again without NoNetwork

	puts   *uint32        // gets the result
	digits *[pidRoom]byte // of getpid: gets the result in decimal, and a zero
}

// childCalls composes the calls of a child. What their arguments point to is on the heap, and held.
type childCalls struct {
	calls []childCall
	held  []any
}

// add adds a call. The pointers among args are to what is held.
func (c *childCalls) add(err func(error) error, number uintptr, args ...uintptr) {
	call := childCall{number: number, error: err}
	copy(call.args[:], args)
	c.calls = append(c.calls, call)
}

// may is add for a call that may fail.
func (c *childCalls) may(number uintptr, args ...uintptr) {
	c.add(nil, number, args...)
	c.calls[len(c.calls)-1].spare = 1
}

// held returns the address of v, which stays.
func held[T any](c *childCalls, v T) uintptr {
	p := new(T)
	*p = v
	c.held = append(c.held, p)
	return uintptr(unsafe.Pointer(p))
}

func (c *childCalls) text(s string) uintptr {
	b := append([]byte(s), 0)
	c.held = append(c.held, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

// texts returns the address of the addresses of all, of more, and nil.
func (c *childCalls) texts(all []string, more ...uintptr) uintptr {
	p := make([]uintptr, 0, len(all)+len(more)+1)
	for _, s := range all {
		p = append(p, c.text(s))
	}
	p = append(append(p, more...), 0)
	c.held = append(c.held, p)
	return uintptr(unsafe.Pointer(&p[0]))
}

// field returns the error of a field of the walls.
func field(name, call, remedy string) func(error) error { return option("Sandbox."+name, call, remedy) }

// group has the calls since the one of number from left out if one of them fails, by BestEffort.
func (c *childCalls) group(from int, best bool) {
	for i := from; best && i < len(c.calls); i++ {
		c.calls[i].spare = len(c.calls) - i
	}
}

// calls returns the calls of a child of cmd.
func (cmd *Command) calls(path string, fds []uintptr) *childCalls {
	c, w := &childCalls{}, cmd.Wall
	if w == nil {
		w = &wall.Wall{}
	}
	spec := w.Rules
	limit := func(l Rlimit, soft uint64) {
		c.add(func(err error) error {
			return &OptionError{l.String(), fmt.Errorf("%w: %s", os.NewSyscallError("prlimit", err), l.remedy(err))}
		}, unix.SYS_PRLIMIT64, 0, uintptr(l.Number()), held(c, unix.Rlimit{Cur: soft, Max: l.Hard}), 0)
	}
	// After the exec a caught signal has its default. Here no handler may run.
	for sig := syscall.Signal(1); sig < 65; sig++ {
		var act image.Action
		if sig != unix.SIGKILL && sig != unix.SIGSTOP && image.Sigaction(sig, nil, &act) == 0 && !act.Ignores() {
			c.may(unix.SYS_RT_SIGACTION, uintptr(sig), held(c, image.Action{}), 0, sigsetSize)
		}
	}
	c.add(call("setpgid", needsGroup), unix.SYS_SETPGID, 0, 0)
	var late []Rlimit
	for _, l := range cmd.Rlimits {
		if l.Name != "nproc" && l.Name != "nofile" { // setuid compares with the one, placeFiles takes numbers below the other
			limit(l, l.Soft)
			continue
		}
		late = append(late, l)
		var now unix.Rlimit
		if unix.Getrlimit(l.Number(), &now) == nil && l.Hard > now.Max { // takes a privilege
			limit(l, min(now.Cur, l.Hard))
		}
	}
	if cmd.Nice != 0 {
		c.add(option(fmt.Sprintf("Nice %d", cmd.Nice), "setpriority", needsNice), unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, uintptr(cmd.Nice))
	}
	if cmd.Wall != nil {
		c.add(field("NoNewPrivileges", "prctl", needsFiles), unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	own := ownCapabilities()
	if spec.NoNetwork {
		from := len(c.calls)
		refused := field("NoNetwork", "unshare", needsNamespace)
		switch {
		case own&(1<<unix.CAP_SYS_ADMIN) != 0:
			c.add(refused, unix.SYS_UNSHARE, unix.CLONE_NEWNET)
		default: // a user namespace in which it has its own number
			c.add(refused, unix.SYS_UNSHARE, unix.CLONE_NEWUSER|unix.CLONE_NEWNET)
			for _, f := range [][2]string{
				{"setgroups", "deny"}, {"uid_map", fmt.Sprintf("%d %[1]d 1", os.Geteuid())}, {"gid_map", fmt.Sprintf("%d %[1]d 1", os.Getegid())},
			} {
				c.add(field("NoNetwork", "open "+f[0], needsNamespace), unix.SYS_OPENAT, ^uintptr(99), c.text("/proc/self/"+f[0]), unix.O_WRONLY|unix.O_CLOEXEC)
				c.add(field("NoNetwork", "write "+f[0], needsNamespace), unix.SYS_WRITE, lastResult, c.text(f[1]), uintptr(len(f[1])))
			}
		}
		c.group(from, spec.BestEffort)
		for i := from + 1; i < len(c.calls); i++ { // half of it is no network at all
			c.calls[i].spare, c.calls[i].without = 0, spec.BestEffort
		}
	}
	keep, caps := w.Capabilities()
	if caps {
		from := len(c.calls)
		if own&(1<<unix.CAP_SETPCAP) != 0 { // without it, NoNewPrivileges alone keeps the others away
			for n := range wall.Bounding(keep) {
				c.add(field("Capabilities", "prctl with PR_CAPBSET_DROP", needsCaps), unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, n, 0, 0, 0)
			}
		}
		if keep != 0 && cmd.Credential != nil {
			c.add(field("Capabilities", "prctl with PR_SET_KEEPCAPS", needsCaps), unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)
		}
		c.group(from, spec.BestEffort)
	}
	if id := cmd.Credential; id != nil {
		refused := option(fmt.Sprintf("user %d, group %d, groups %d", id.Uid, id.Gid, id.Groups), "setgroups, setgid or setuid", needsUser)
		if !id.NoSetGroups {
			groups := append(slices.Clone(id.Groups), 0)
			c.held = append(c.held, groups)
			c.add(refused, sysSetgroups, uintptr(len(id.Groups)), uintptr(unsafe.Pointer(&groups[0])))
		}
		c.add(refused, sysSetgid, uintptr(id.Gid))
		c.add(refused, sysSetuid, uintptr(id.Uid))
	}
	if caps {
		from := len(c.calls)
		set := capSet{uint32(keep), uint32(keep), uint32(keep), uint32(keep >> 32), uint32(keep >> 32), uint32(keep >> 32)}
		c.add(field("Capabilities", "capset", needsCaps), unix.SYS_CAPSET, held(c, unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}), held(c, set))
		for n := range wall.Each(keep) {
			c.add(field("Capabilities", "prctl with PR_CAP_AMBIENT", needsCaps), unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, n, 0, 0)
		}
		c.group(from, spec.BestEffort)
	}
	if cmd.dir != "" {
		c.add(func(err error) error { return &OptionError{"Dir " + cmd.Dir, os.NewSyscallError("chdir", err)} }, unix.SYS_CHDIR, c.text(cmd.dir))
	}
	if cmd.DeathSignal != 0 {
		c.add(call("prctl with PR_SET_PDEATHSIG", needsDeath), unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(cmd.DeathSignal), 0, 0, 0)
		c.add(call("getppid", needsDeath), unix.SYS_GETPPID) // this program may be dead by now
		c.calls[len(c.calls)-1].want = uintptr(os.Getpid())
	}
	if w.Ruleset != nil {
		from := len(c.calls)
		c.add(field("NoFiles", "landlock_restrict_self", needsFiles), unix.SYS_LANDLOCK_RESTRICT_SELF, w.Ruleset.Fd(), 0)
		c.group(from, spec.BestEffort)
	}
	c.placeFiles(fds)
	var files unix.Rlimit // as syscall.ForkExec has it
	listed := slices.ContainsFunc(late, func(l Rlimit) bool { return l.Name == "nofile" })
	if !listed && unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil {
		files.Cur = min(softFiles(), files.Max)
		c.may(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, held(c, files), 0)
	}
	for _, l := range late {
		limit(l, l.Soft)
	}
	c.add(call("rt_sigprocmask", needsFiles), unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, held(c, unix.Sigset_t{}), 0, sigsetSize)
	// The arguments of the exec come before the filter, so that nothing has to be looked up after
	// it.
	argv, env := c.texts(cmd.Args), cmd.Env
	var more []uintptr
	if cmd.ListenPID {
		const variable = "LISTEN_PID="
		env = slices.DeleteFunc(slices.Clone(env), func(kv string) bool { return strings.HasPrefix(kv, variable) })
		b := append([]byte(variable), make([]byte, pidRoom)...)
		c.held, more = append(c.held, b), append(more, uintptr(unsafe.Pointer(&b[0])))
		c.add(call("getpid", needsFiles), unix.SYS_GETPID)
		c.calls[len(c.calls)-1].digits = (*[pidRoom]byte)(b[len(variable):])
	}
	envv := c.texts(env, more...)
	if len(w.Filter) > 0 {
		from := len(c.calls)
		c.held = append(c.held, w.Filter)
		for i := range w.Filter {
			if in := &w.Filter[i]; in.Code == unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K && in.K == wall.OwnPID {
				c.may(unix.SYS_GETPID)
				c.calls[len(c.calls)-1].puts = &in.K
			}
		}
		c.add(field("Syscalls", "seccomp", needsSeccomp), unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0,
			held(c, unix.SockFprog{Len: uint16(len(w.Filter)), Filter: &w.Filter[0]}))
		c.group(from, spec.BestEffort)
	}
	c.add(func(err error) error {
		err = reason(err, path, cmd.dir)
		if w.Ruleset != nil && errors.Is(err, unix.EACCES) {
			err = fmt.Errorf("%w: Sandbox.Execute must have the interpreter, or dynamic loader, of the program, and its shared libraries", err)
		}
		return err
	}, unix.SYS_EXECVE, c.text(path), argv, envv)
	return c
}

// capSet is cap_user_data_t[2]: the effective, permitted and inheritable sets, low and high halves.
type capSet [6]uint32

// placeFiles adds the calls that give the descriptors their numbers, as syscall.ForkExec does.
func (c *childCalls) placeFiles(fds []uintptr) {
	refused := call("dup3 or fcntl", needsFiles)
	from, free := slices.Clone(fds), uintptr(len(fds))
	for _, fd := range fds {
		if fd != closed {
			free = max(free, fd)
		}
	}
	for i, fd := range from { // out of the way of others
		if fd != closed && fd < uintptr(i) {
			free++
			c.add(refused, unix.SYS_DUP3, fd, free, unix.O_CLOEXEC)
			from[i] = free
		}
	}
	for i, fd := range from {
		switch {
		case fd == closed:
			c.may(unix.SYS_CLOSE, uintptr(i))
		case fd == uintptr(i):
			c.add(refused, unix.SYS_FCNTL, fd, unix.F_SETFD, 0)
		default:
			c.add(refused, unix.SYS_DUP3, fd, uintptr(i), 0)
		}
	}
	for i := len(fds); i < 3; i++ { // not close-on-exec by convention
		c.may(unix.SYS_CLOSE, uintptr(i))
	}
}

// ownCapabilities returns the effective set of this thread.
func ownCapabilities() uint64 {
	var set [2]unix.CapUserData
	if unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &set[0]) != nil {
		return 0
	}
	return uint64(set[0].Effective) | uint64(set[1].Effective)<<32
}

// nowhere is a path that is too long for any program: its exec fails with ENAMETOOLONG, or as the
// program's execve is refused.
var nowhere = append(bytes.Repeat([]byte{'/'}, unix.PathMax), 0)

// execRefused reports whether this program may not call execve, whatever it executes.
func execRefused() bool {
	_, _, errno := unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(&nowhere[0])), 0, 0)
	return errno != unix.ENAMETOOLONG
}

// softFiles is the limit of descriptors with which this program was started. Package syscall raises
// it, and lowers it for other programs: also before an exec that fails. The launcher calls it
// first, when the lower limit for a moment is no harm.
var softFiles = sync.OnceValue(func() uint64 {
	defer setBackFileLimit()()
	_ = syscall.Exec(string(nowhere[:unix.PathMax]), nil, nil)
	var l unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &l)
	return l.Cur
})

// sigsetSize is the size of the kernel's sigset_t.
var sigsetSize = func() uintptr {
	if strings.HasPrefix(runtime.GOARCH, "mips") {
		return 16
	}
	return 8
}()
