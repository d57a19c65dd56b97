package coppice

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/coppice-go/coppice/runtime/internal/process"
)

// Environment is what a process is given besides its program. The zero value of
// each field is what the master itself has. All of it is in effect before the
// process's first instruction; what the system does not honour fails the start,
// with an error that names the field. Goroutines have no environment of their own:
// with [GoroutineIsolation] it must be zero.
type Environment struct {
	// Env is added to the master's environment: "KEY=value". The later of two
	// values for one key counts. "KEY" alone takes the key away.
	Env []string

	Dir string // working directory; "" = that in which the program was started

	// Files are open files that the process is given by name, besides standard
	// input, output and error: at most 32. A worker asks for them with
	// [Worker.File]; other programs find them from descriptor 3 on in this order,
	// and their names in COPPICE_FILES, joined by colons. No other descriptor of
	// the master reaches a process.
	Files []File

	// MaxProcs is GOMAXPROCS for Go programs: how many CPUs the process uses at
	// once. [FairShare] = the master's own, shared out evenly over the pool (rounded up).
	MaxProcs int

	// MemoryLimit is GOMEMLIMIT in bytes for Go programs: above it the garbage
	// collector works harder; nothing is refused. [FairShare] = nine tenths of what the
	// master may use (its own GOMEMLIMIT, or the limit of its cgroup, or the
	// machine's memory), shared out evenly over the pool.
	MemoryLimit int64

	// Rlimits are resource limits, see setrlimit(2). To raise a hard limit takes
	// privileges. A Go program raises its soft limit of nofile to the hard one.
	Rlimits []Rlimit

	// Nice is the scheduling priority, -20 to 19; 0 = the master's. A value below
	// the master's takes privileges.
	Nice int

	// User, Group and Groups are who the process is, by name or number; they take
	// privileges. With a User and no Group the group is the user's own, and with
	// nil Groups the supplementary groups are the user's own: as a login has it. What
	// a worker asks to listen on is opened by the master, with the rights that the master
	// has: so such a pool may ask for the tree's Listeners alone, and for what Pool.Listen allows.
	User   string
	Group  string
	Groups []string

	// Cgroup is the directory of a cgroup (version 2) in which the process is born,
	// below /sys/fs/cgroup if it is not absolute. It must exist; who made it gives it
	// its limits.
	Cgroup string
}

// FairShare, as a MaxProcs or MemoryLimit, is a fair share of what the master has.
const FairShare = -1

// maxExtraFiles bounds Environment.Files.
const maxExtraFiles = 32

// A File is an open file that a process is given. Exactly one of FD and Path is
// set.
type File struct {
	Name string // by which the process finds it; up to 64 bytes without space, colon, / and =

	// FD is the number that the file has in the master, 3 or more: it must be open
	// there whenever the process is started.
	FD int

	// Path is opened by the master at each start of the process, for reading, or
	// with Append for writing at its end; it is created if need be (mode 0640). Where others
	// than root and the master's user can change the path, it is a regular file without another
	// name, and reached by no symbolic link of theirs: else the start fails. So it does where
	// Path is a pipe to write to that nobody reads: ENXIO.
	Path   string
	Append bool
}

// String leaves out FD, which need not be the same in a child, where the same
// specs are looked at.
func (f File) String() string {
	s := f.Name
	if f.Path != "" {
		s += "=" + f.Path
	}
	if f.Append {
		s += "+"
	}
	return s
}

// Rlimit is one resource limit of a process.
type Rlimit struct {
	// Name is as in ulimit and limits.conf: as, core, cpu, data, fsize, memlock,
	// msgqueue, nice, nofile, nproc, rss, rtprio, rttime, sigpending, stack.
	Name       string
	Soft, Hard uint64 // in the unit of setrlimit(2); Unlimited = none
}

// Unlimited is no limit, in an [Rlimit].
const Unlimited = math.MaxUint64

func (e Environment) isZero() bool {
	return e.Env == nil && e.Dir == "" && e.Files == nil && e.MaxProcs == 0 && e.MemoryLimit == 0 &&
		e.Rlimits == nil && e.Nice == 0 && e.User == "" && e.Group == "" && e.Groups == nil && e.Cgroup == ""
}

// anotherUser reports whether the process is to be another user, or of other groups, than the master.
func (e Environment) anotherUser() bool { return e.User != "" || e.Group != "" || e.Groups != nil }

func (e Environment) validate(bad reportInvalid, path string) {
	const in = "Environment."
	for _, kv := range e.Env {
		if k, _, _ := strings.Cut(kv, "="); k == "" || strings.ContainsRune(kv, 0) {
			bad(path, in+"Env", fmt.Sprintf("%.100q", kv), `is not "KEY=value"`)
		} else if len(kv) > maxString {
			bad(path, in+"Env", k, tooLong(kv))
		} else if strings.HasPrefix(k, "COPPICE_CHANNEL") || strings.HasPrefix(k, "COPPICE_CHILD_") {
			bad(path, in+"Env", fmt.Sprintf("%q", kv), "is the tree's own")
		}
	}
	if len(e.Files) > maxExtraFiles {
		bad(path, in+"Files", len(e.Files), fmt.Sprintf("are more than %d", maxExtraFiles))
	}
	seen := map[string]bool{}
	for _, f := range e.Files {
		switch {
		case f.Name == "" || len(f.Name) > maxName || strings.ContainsFunc(f.Name, func(r rune) bool {
			return notInName(r) || r == ':' || r == '='
		}):
			bad(path, in+"Files", fmt.Sprintf("%q", f.Name), fmt.Sprintf("is not a name of up to %d bytes without space, colon, / and =", maxName))
		case seen[f.Name]:
			bad(path, in+"Files", f.Name, "is there twice")
		case (f.FD != 0) == (f.Path != ""):
			bad(path, in+"Files", f.Name, "needs one of FD and Path")
		case f.Path == "" && f.FD < 3:
			bad(path, in+"Files", f.Name, "has an FD below 3")
		}
		seen[f.Name] = true
	}
	if e.MaxProcs < FairShare {
		bad(path, in+"MaxProcs", e.MaxProcs, "is negative")
	}
	if e.MemoryLimit < FairShare {
		bad(path, in+"MemoryLimit", e.MemoryLimit, "is negative")
	}
	for _, l := range e.Rlimits {
		switch {
		case !slices.Contains(process.RlimitNames, l.Name):
			bad(path, in+"Rlimits", fmt.Sprintf("%q", l.Name), "is none of "+strings.Join(process.RlimitNames, ", "))
		case l.Soft > l.Hard:
			bad(path, in+"Rlimits", l.Name, "has a soft limit above the hard one")
		}
	}
	if e.Nice < -20 || e.Nice > 19 {
		bad(path, in+"Nice", e.Nice, "is not between -20 and 19")
	}
}

// maxString bounds one argument or variable of a program, in bytes: MAX_ARG_STRLEN of
// execve(2), which counts the final zero.
const maxString = 32*4096 - 1

func tooLong(s string) string {
	return fmt.Sprintf("has %d bytes, more than %d: no program can be given it; use a file, or Config.Load", len(s), maxString)
}

// variables returns the environment of a process that is one of n: the master's,
// e's, and more after that.
func (e Environment) variables(base []string, n int, more ...string) []string {
	vars := base
	if e.MaxProcs != 0 {
		vars = append(vars[:len(vars):len(vars)], "GOMAXPROCS="+strconv.Itoa(e.maxProcs(n)))
	}
	if e.MemoryLimit != 0 {
		if limit := e.memoryLimit(n); limit != 0 {
			vars = append(vars[:len(vars):len(vars)], fmt.Sprintf("GOMEMLIMIT=%dB", limit))
		}
	}
	return merge(vars, e.Env, more)
}

func (e Environment) maxProcs(n int) int {
	if e.MaxProcs != FairShare {
		return e.MaxProcs
	}
	return (runtime.GOMAXPROCS(0) + n - 1) / n
}

func (e Environment) memoryLimit(n int) int64 {
	if e.MemoryLimit != FairShare {
		return e.MemoryLimit
	}
	return process.MemoryLimit() / 10 * 9 / int64(n)
}

// merge joins environments: of two values for one key the later counts, at the
// place of the first, and a key without a value takes the key away. Programs
// differ in which of two values they take, so no key is there twice.
func merge(envs ...[]string) []string {
	at := map[string]int{}
	var out []string
	for _, env := range envs {
		for _, kv := range env {
			k, _, has := strings.Cut(kv, "=")
			if strings.HasPrefix(kv, "=") { // no key: it is passed on as it is
				out = append(out, kv)
				continue
			}
			i, there := at[k]
			switch {
			case there && has:
				out[i] = kv
			case there:
				out[i] = ""
				delete(at, k)
			case has:
				at[k] = len(out)
				out = append(out, kv)
			}
		}
	}
	return slices.DeleteFunc(out, func(kv string) bool { return kv == "" })
}

// firstFile is the descriptor of the first of Environment.Files in a process.
const firstFile = 3

// fileNames are the names of files, as in childproto.FilesVar.
func (e Environment) fileNames() string {
	var names []string
	for _, f := range e.Files {
		names = append(names, f.Name)
	}
	return strings.Join(names, ":")
}

// environmentError says which field of an Environment cannot be had.
func environmentError(field string, value any, err error) error {
	return fmt.Errorf("Environment.%s %v: %w", field, value, err)
}
