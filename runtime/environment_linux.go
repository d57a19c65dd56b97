package coppice

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/runtime/internal/cgroup"
	"github.com/coppice-go/coppice/runtime/internal/output"
	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/runtime/internal/started"
)

// appliedEnvironment is what a process is started with, and what must be released after the start.
type appliedEnvironment struct {
	cmd   process.Command
	held  []*os.File
	group *cgroup.Cgroup // made for it; nil = none, or somebody else owns it
}

// apply completes cmd: it looks for cmd's program in PATH and adds e except for the variables. It
// may block for ever, so it runs under [process.Apart]. The caller closes what the result holds
// after the start. label has the name and the number of the process.
func (e Environment) apply(cmd process.Command, label output.Line, orphans time.Duration, at *process.Look) (*appliedEnvironment, error) {
	o := &appliedEnvironment{cmd: cmd}
	err := o.add(e, at)
	if err == nil {
		err = o.addGroup(e.Resources, label, orphans, at)
	}
	if err != nil {
		return nil, errors.Join(err, o.Close())
	}
	process.Reach(at, &o.cmd)
	return o, nil
}

func (o *appliedEnvironment) Close() error {
	errs := []error{o.cmd.Wall.Close(), o.group.Remove(groupGrace)}
	for _, f := range o.held {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

func (o *appliedEnvironment) add(e Environment, at *process.Look) (err error) {
	if o.cmd.Executable == nil && !strings.Contains(o.cmd.Path, "/") {
		at.At("PATH")
		if o.cmd.Path, err = exec.LookPath(o.cmd.Path); err != nil {
			return err
		}
	}
	at.At("the working directory")
	o.cmd.Dir, o.cmd.Nice = e.Dir, e.Nice
	if o.cmd.Executable == nil { // the executable of a generation has a directory with it
		o.cmd.Dir = started.In(started.Dir(), e.Dir)
	}
	for _, l := range e.Rlimits {
		o.cmd.Rlimits = append(o.cmd.Rlimits, process.Rlimit(l))
	}
	first := firstFile
	if o.cmd.Executable == nil {
		first = len(o.cmd.Files) // behind the sockets
	}
	for i, f := range e.Files {
		at.At("Environment.Files " + f.Name + " " + f.Path)
		file, err := f.open()
		if err != nil {
			return environmentError("Files", f.Name, err)
		}
		o.held = append(o.held, file)
		for len(o.cmd.Files) <= first+i {
			o.cmd.Files = append(o.cmd.Files, nil)
		}
		o.cmd.Files[first+i] = file
	}
	if e.Cgroup != "" {
		at.At("Environment.Cgroup " + e.Cgroup)
		dir := e.Cgroup
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(cgroupMount(), dir)
		}
		f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return environmentError("Cgroup", e.Cgroup, err)
		}
		o.held, o.cmd.Cgroup = append(o.held, f), f
	}
	at.At("the paths of Environment.Sandbox")
	if o.cmd.Wall, err = e.Sandbox.spec().Build(); err != nil {
		return fmt.Errorf("Environment.Sandbox.%w", err)
	}
	at.At(fmt.Sprintf("the directory of users (Environment.User %q, Group %q, Groups %q)", e.User, e.Group, e.Groups))
	o.cmd.Credential, err = e.credential()
	return err
}

// addGroup makes the group of the process, if r asks for one.
func (o *appliedEnvironment) addGroup(r Resources, label output.Line, orphans time.Duration, at *process.Look) (err error) {
	if r == (Resources{}) {
		return nil
	}
	at.At("Environment.Resources")
	if o.group, err = cgroup.Make(label.Name, max(label.ID, label.Incarnation), r.settings(), orphans); err != nil {
		return fmt.Errorf("Environment.Resources.%w", err)
	}
	f, err := os.Open(o.group.Dir())
	if err == nil {
		o.held, o.cmd.Cgroup = append(o.held, f), f
	}
	return err
}

// limits returns the numbers of the limits that e sets.
func (e Environment) limits() (numbers []int) {
	for _, l := range e.Rlimits {
		numbers = append(numbers, process.Rlimit(l).Number())
	}
	return numbers
}

// cgroupMount returns the mount point of the version 2 hierarchy. On systems with both versions it
// is one level down (systemd calls them hybrid).
func cgroupMount() string {
	const mount, hybrid = "/sys/fs/cgroup", "/sys/fs/cgroup/unified"
	if _, err := os.Stat(mount + "/cgroup.controllers"); err != nil {
		if _, err := os.Stat(hybrid + "/cgroup.controllers"); err == nil {
			return hybrid
		}
	}
	return mount
}

// open returns the file, owned by the caller.
func (f File) open() (*os.File, error) {
	if f.Path == "" {
		return dupFile(f.FD, f.Name)
	}
	flag := os.O_RDONLY
	if f.Append {
		flag = os.O_WRONLY | os.O_APPEND | os.O_CREATE
	}
	file, err := netactor.OpenFile(f.Path, flag|unix.O_NONBLOCK, 0o640) // a pipe's other end need not be there: fifo(7)
	if errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("%w: a pipe that no process reads", err)
	}
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(int(file.Fd()), false); err != nil { // the process expects it to block
		return nil, errors.Join(os.NewSyscallError("fcntl", err), file.Close())
	}
	return file, nil
}

// dupFile returns a new descriptor of the file that is open as fd.
func dupFile(fd int, name string) (*os.File, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, firstFile)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, os.NewSyscallError("fcntl", err))
	}
	return os.NewFile(uintptr(dup), name), nil
}

// credential looks up the user and the groups of the process; nil = those of the master.
func (e Environment) credential() (*syscall.Credential, error) {
	if !e.anotherUser() {
		return nil, nil
	}
	c := &syscall.Credential{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}
	var u *user.User
	if e.User != "" {
		var err error
		if u, err = lookupUser(e.User); err != nil {
			return nil, environmentError("User", e.User, err)
		}
		if c.Uid, err = number(u.Uid); err != nil {
			return nil, environmentError("User", e.User, err)
		}
		if u.Gid != "" {
			if c.Gid, err = number(u.Gid); err != nil {
				return nil, environmentError("User", e.User, err)
			}
		} else if e.Group == "" {
			return nil, environmentError("User", e.User, errors.New("has no name here: its Group must be given"))
		}
	}
	if e.Group != "" {
		var err error
		if c.Gid, err = lookupGroup(e.Group); err != nil {
			return nil, environmentError("Group", e.Group, err)
		}
	}
	groups := e.Groups
	if groups == nil && u != nil && u.Username != "" {
		var err error
		if groups, err = u.GroupIds(); err != nil {
			return nil, environmentError("User", e.User, err)
		}
	}
	for _, g := range groups {
		gid, err := lookupGroup(g)
		if err != nil {
			return nil, environmentError("Groups", g, err)
		}
		c.Groups = append(c.Groups, gid)
	}
	return c, nil
}

// lookupUser finds a user by name or number. A number need not have a name.
func lookupUser(s string) (*user.User, error) {
	u, err := user.Lookup(s)
	if err == nil {
		return u, nil
	}
	if _, nerr := number(s); nerr != nil {
		return nil, err
	}
	if u, err := user.LookupId(s); err == nil {
		return u, nil
	}
	return &user.User{Uid: s}, nil
}

func lookupGroup(s string) (uint32, error) {
	if g, err := user.LookupGroup(s); err == nil {
		return number(g.Gid)
	} else if gid, nerr := number(s); nerr == nil {
		return gid, nil
	} else {
		return 0, err
	}
}

func number(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}

// keepFiles makes the descriptors that this process inherited close-on-exec, so that the processes
// that it starts do not get them.
func keepFiles(n int) {
	for i := range n {
		unix.CloseOnExec(firstFile + i)
	}
}

// keepName restores the name that ps and top show for this process: exec of /proc/self/fd/N sets
// the name to "N". It sets the name of the main thread, so it must be called there, that is from an
// init.
func keepName() {
	name := append([]byte(filepath.Base(os.Args[0])), 0)
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0) // cut to 15 bytes; it cannot fail
}
