package cgroup

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Names of directories.
const (
	parentPrefix = "coppice-"
	leaf         = "coppice-master"
)

// Control files.
const (
	controllersFile = "cgroup.controllers"
	handedDown      = "cgroup.subtree_control"
	procsFile       = "cgroup.procs"
	killFile        = "cgroup.kill" // since Linux 5.14
	eventsFile      = "cgroup.events"
	memoryEvents    = "memory.events"
)

const errGone = syscall.ENODEV // of a file of a group that was removed while it was open

// home is where this program makes its groups.
var home struct {
	mu  sync.Mutex
	dir string // own/coppice-N; "" = none yet
}

// TakeOver goes on in the directory that [Home] was in an earlier image of this program.
func TakeOver(dir string) {
	home.mu.Lock()
	defer home.mu.Unlock()
	home.dir = dir
}

// Home returns the directory in which this program makes its groups; "" if it has made none.
func Home() string {
	home.mu.Lock()
	defer home.mu.Unlock()
	return home.dir
}

// A Setting is a value in a control file of a group.
type Setting struct {
	Field       string // what asks for it, for errors
	File, Value string
}

// controller returns the controller that has the setting.
func (s Setting) controller() string {
	c, _, _ := strings.Cut(s.File, ".")
	return c
}

// Make makes a group for the process with a name and a number, with settings, which are in effect
// when it returns. The caller owns the group. An error begins with the field of a setting, or with
// Accounting if there are none, and says what the system lacks; then there is no group.
//
// The first call moves this program. It removes what a former master has left: groups without
// processes at once, and the others after orphans, the time in which workers of its may finish.
func Make(name string, number int, settings []Setting, orphans time.Duration) (*Cgroup, error) {
	instead := "Accounting"
	if len(settings) > 0 {
		instead = settings[0].Field
	}
	home.mu.Lock()
	defer home.mu.Unlock()
	own := filepath.Dir(home.dir)
	if home.dir == "" {
		var err error
		if own, err = find("/proc/self/mountinfo", "/proc/self/cgroup"); err != nil {
			return nil, fmt.Errorf("%s: %w", instead, err)
		}
	}
	for _, s := range settings { // before anything is changed
		if err := has(own, s.controller()); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Field, err)
		}
	}
	if home.dir == "" {
		if err := settle(own, orphans); err != nil {
			return nil, fmt.Errorf("%s: %w", instead, err)
		}
	}
	for _, s := range settings {
		if err := errors.Join(handDown(own, s.controller()), handDown(home.dir, s.controller())); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Field, err)
		}
	}
	dir, err := makeDir(home.dir, safe(name)+"#", number)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", instead, err)
	}
	for _, s := range settings {
		if err := write(dir, s.File, s.Value); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", s.Field, err), os.Remove(dir))
		}
	}
	return At(dir), nil
}

// maxSame bounds how many groups of one name and number are tried: other trees of this program may
// have them.
const maxSame = 1000

// makeDir makes a directory that there is not yet, with the first free number.
func makeDir(in, prefix string, number int) (string, error) {
	for n := number; ; n++ {
		dir := filepath.Join(in, prefix+strconv.Itoa(n))
		err := os.Mkdir(dir, 0o755)
		if err == nil || !errors.Is(err, os.ErrExist) || n == number+maxSame {
			return dir, refused(err)
		}
	}
}

// refused explains why the kernel does not let a group be made or moved to.
func refused(err error) error {
	switch {
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: cgroups are mounted read-only, as in most containers", err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: no cgroup is delegated to this program (systemd: Delegate=yes)", err)
	}
	return err
}

// safe returns a name as the name of a directory.
func safe(name string) string {
	const long = 128 // of the 255 bytes that a name may have
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '.' {
			return r
		}
		return '-'
	}, name)
	return strings.TrimLeft(name[:min(len(name), long)], ".")
}

// settle makes a parent of groups in the program's own cgroup, and moves the program into the leaf
// below it.
func settle(own string, orphans time.Duration) (err error) {
	if Sweep(own, orphans <= 0) > 0 {
		time.AfterFunc(orphans, func() { Sweep(own, true) })
	}
	const tries = 3 // another program may take the directory for a left-over one before its leaf is taken
	for range tries {
		if err = move(own); !errors.Is(err, os.ErrNotExist) && !errors.Is(err, errGone) {
			break
		}
	}
	return err
}

func move(own string) error {
	dir, err := makeDir(own, parentPrefix, os.Getpid())
	if err != nil {
		return err
	}
	to := filepath.Join(dir, leaf)
	if err = os.Mkdir(to, 0o755); err == nil {
		if _, err = os.Stat(filepath.Join(dir, killFile)); err != nil {
			err = fmt.Errorf("%w: it takes Linux 5.14", err)
		} else {
			err = refused(write(to, procsFile, strconv.Itoa(os.Getpid())))
		}
	}
	if err != nil {
		return errors.Join(err, gone(os.Remove(to)), gone(os.Remove(dir)))
	}
	home.dir = dir
	return nil
}

// has returns an error if a cgroup does not have a controller.
func has(dir, controller string) error {
	b, err := os.ReadFile(filepath.Join(dir, controllersFile))
	if err != nil {
		return err
	}
	if there := strings.Fields(string(b)); !slices.Contains(there, controller) {
		return fmt.Errorf("the controller %s is not there in %s, which has %s", controller, dir, cmp.Or(strings.Join(there, ", "), "none"))
	}
	return nil
}

// handDown lets the cgroups in dir have a controller. If processes are in the way, this program's
// are moved into its leaf.
func handDown(dir, controller string) error {
	b, err := os.ReadFile(filepath.Join(dir, handedDown))
	if err != nil {
		return err
	}
	if slices.Contains(strings.Fields(string(b)), controller) {
		return nil
	}
	const tries = 10 // processes may be forked meanwhile
	for range tries {
		if err = write(dir, handedDown, "+"+controller); !errors.Is(err, syscall.EBUSY) {
			return refused(err)
		}
		others, err := moveOurs(dir)
		if err != nil {
			return err
		}
		if len(others) > 0 {
			return fmt.Errorf("%w: %s has processes that are not of this program: %d", syscall.EBUSY, dir, others)
		}
	}
	return err
}

// moveOurs moves the processes of a cgroup that this program has started into its leaf, and returns
// the others.
func moveOurs(dir string) (others []int, err error) {
	b, err := os.ReadFile(filepath.Join(dir, procsFile))
	if err != nil {
		return nil, err
	}
	for _, f := range strings.Fields(string(b)) {
		pid, _ := strconv.Atoi(f)
		if !ours(pid) {
			others = append(others, pid)
			continue
		}
		err := write(filepath.Join(home.dir, leaf), procsFile, f)
		if err != nil && !errors.Is(err, syscall.ESRCH) {
			return nil, err
		}
	}
	return others, nil
}

// ours reports whether a process is this one, or was started by it, or has ended.
func ours(pid int) bool {
	for range 64 {
		if pid == os.Getpid() {
			return true
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return pid != 0
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:])) // state ppid …
		if len(f) < 2 {
			return false
		}
		if pid, err = strconv.Atoi(f[1]); err != nil || pid == 0 {
			return false
		}
	}
	return false
}

// Sweep removes the groups in own that a former master has left. Of those that have processes it
// returns the number, or kills them. It knows them by their parent's name and by the leaf, in which
// the master would be.
func Sweep(own string, kill bool) (left int) {
	parents, _ := filepath.Glob(filepath.Join(own, parentPrefix+"*", leaf))
	for _, master := range parents {
		if populated(master) {
			continue
		}
		parent := filepath.Dir(master)
		groups, _ := os.ReadDir(parent)
		busy := false
		for _, g := range groups {
			at := filepath.Join(parent, g.Name())
			switch {
			case !g.IsDir() || g.Name() == leaf:
			case kill:
				busy = At(at).Remove(time.Second) != nil || busy
			case populated(at) || remove(at) != nil:
				busy = true
			}
		}
		if busy {
			left++
			continue
		}
		_, _ = os.Remove(master), os.Remove(parent) // another master may be settling there
	}
	return left
}

// populated reports whether a process is in a cgroup or below it. What cannot be read, for want of
// descriptors perhaps, may have some: no living master may be taken for a former one.
func populated(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, eventsFile))
	if err != nil {
		return gone(err) != nil
	}
	return parseKeys(b)["populated"] != 0
}

// write writes a value to a control file. It makes no file.
func write(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
