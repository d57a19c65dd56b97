package wall

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Wall is Rules made ready for one start of a process.
type Wall struct {
	Rules   Rules
	Ruleset *os.File          // of Landlock; nil = none
	Filter  []unix.SockFilter // of seccomp; nil = none
	Lacks   []string          // what Rules.BestEffort goes without

	path uint64 // the access to files that Ruleset handles
}

// LackError is the error of a field of Rules that the system does not honour.
type LackError struct {
	Field string
	Err   error
}

func (e *LackError) Error() string { return e.Field + ": " + e.Err.Error() }

// Unwrap returns the system's error.
func (e *LackError) Unwrap() error { return e.Err }

// Build makes s ready; nil if s has no walls. It opens the paths of s, so it may block. The caller
// closes the result when the process was started.
func (s Rules) Build() (*Wall, error) {
	if s.IsZero() {
		return nil, nil
	}
	w := &Wall{Rules: s}
	if s.filters() || s.tcp() || s.Scoped {
		switch {
		case arch != 0:
			w.Filter = s.filter()
		case s.BestEffort:
			w.lacks("Syscalls", errors.ErrUnsupported)
		default:
			return nil, &LackError{"Syscalls", fmt.Errorf("%w on this architecture", errors.ErrUnsupported)}
		}
	}
	if err := w.landlock(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// Close releases what w holds. w may be nil.
func (w *Wall) Close() error {
	if w == nil || w.Ruleset == nil {
		return nil
	}
	return w.Ruleset.Close()
}

func (w *Wall) lacks(field string, err error) {
	w.Lacks = append(w.Lacks, (&LackError{field, err}).Error())
}

// Versions of Landlock's interface (landlock(7)).
const (
	withTruncate = 3 // Linux 6.2: before it, any file could be truncated
	withTCP      = 4 // Linux 6.7
	withIoctl    = 5 // Linux 6.10
	withScope    = 6 // Linux 6.12
)

// version returns that of the kernel.
var version = sync.OnceValues(func() (int, error) {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0, os.NewSyscallError("landlock_create_ruleset", errno)
	}
	return int(v), nil
})

// Access to files, of a directory's and of any file's.
const (
	readDir  = unix.LANDLOCK_ACCESS_FS_READ_DIR
	read     = unix.LANDLOCK_ACCESS_FS_READ_FILE
	execute  = unix.LANDLOCK_ACCESS_FS_EXECUTE
	writeDir = unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_REFER
	write   = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	special = unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK // no process gets it
	ofDir   = readDir | writeDir | special
)

// landlock opens the ruleset.
func (w *Wall) landlock() error {
	s := &w.Rules
	var attr unix.LandlockRulesetAttr
	have, err := version()
	needs := func(is bool, field string, need int, handle func()) error {
		lack := err
		switch {
		case !is:
			return nil
		case have >= need:
			handle()
			return nil
		case err == nil:
			lack = fmt.Errorf("%w: Landlock's version is %d, this takes %d", errors.ErrUnsupported, have, need)
		}
		if s.BestEffort {
			w.lacks(field, lack)
			return nil
		}
		return &LackError{field, lack}
	}
	if err := errors.Join(
		needs(s.files(), "NoFiles", withTruncate, func() {
			attr.Handled_access_fs = execute | read | write | ofDir
			if have < withIoctl {
				attr.Handled_access_fs &^= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
			}
		}),
		needs(s.tcp(), "NoTCP", withTCP, func() {
			attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		}),
		needs(s.Scoped, "Scoped", withScope, func() {
			attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
		}),
	); err != nil || attr == (unix.LandlockRulesetAttr{}) {
		return err
	}
	w.path = attr.Handled_access_fs
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return &LackError{"NoFiles", os.NewSyscallError("landlock_create_ruleset", errno)}
	}
	w.Ruleset = os.NewFile(fd, "Landlock ruleset")
	if w.path != 0 {
		for _, l := range []struct {
			field string
			paths []string
			may   uint64
		}{
			{"Read", s.Read, read | readDir},
			{"Write", s.Write, read | readDir | write | writeDir},
			{"Execute", s.Execute, read | readDir | execute},
		} {
			for _, p := range l.paths {
				if err := w.allow(p, l.may); err != nil {
					return &LackError{l.field, err}
				}
			}
		}
	}
	if attr.Handled_access_net != 0 {
		for may, ports := range map[uint64][]uint16{unix.LANDLOCK_ACCESS_NET_CONNECT_TCP: s.Connect, unix.LANDLOCK_ACCESS_NET_BIND_TCP: s.Bind} {
			for _, p := range ports {
				if err := w.rule(ruleNetPort, unsafe.Pointer(&[2]uint64{may, uint64(p)})); err != nil {
					return &LackError{"NoTCP", err}
				}
			}
		}
	}
	return nil
}

const ruleNetPort = 2 // LANDLOCK_RULE_NET_PORT, of struct { allowed_access, port uint64 }

// Program lets the process execute the program at path.
func (w *Wall) Program(path string) error {
	if w == nil || w.Ruleset == nil || w.path == 0 {
		return nil
	}
	if err := w.allow(path, read|execute); err != nil {
		return &LackError{"Execute", err}
	}
	return nil
}

// allow adds a rule for what is below path.
func (w *Wall) allow(path string, may uint64) error {
	f, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.IsDir() {
		may &^= ofDir
	}
	return w.rule(unix.LANDLOCK_RULE_PATH_BENEATH, unsafe.Pointer(&unix.LandlockPathBeneathAttr{Allowed_access: may & w.path, Parent_fd: int32(f.Fd())}))
}

func (w *Wall) rule(kind uintptr, attr unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, w.Ruleset.Fd(), kind, uintptr(attr), 0, 0, 0)
	if errno != 0 {
		return os.NewSyscallError("landlock_add_rule", errno)
	}
	return nil
}

// Capabilities returns the set that the process is to have; ok is false if it keeps its own.
func (w *Wall) Capabilities() (set uint64, ok bool) {
	for n, name := range capabilities {
		if slices.Contains(w.Rules.Capabilities, name) {
			set |= 1 << n
		}
	}
	return set, w.Rules.caps()
}

// Bounding yields the numbers of the capabilities that leave the bounding set.
func Bounding(keep uint64) func(func(uintptr) bool) {
	return func(yield func(uintptr) bool) {
		for n := uintptr(0); n < 64; n++ {
			has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, n, 0, 0, 0)
			if err != nil { // the kernel has no further ones
				return
			}
			if has == 1 && keep&(1<<n) == 0 && !yield(n) {
				return
			}
		}
	}
}

// Each yields the numbers of a set.
func Each(set uint64) func(func(uintptr) bool) {
	return func(yield func(uintptr) bool) {
		for ; set != 0; set &= set - 1 {
			if !yield(uintptr(bits.TrailingZeros64(set))) {
				return
			}
		}
	}
}
