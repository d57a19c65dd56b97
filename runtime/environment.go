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

// Environment describes how a process is started, besides its program. The zero value of each field
// means the master's own setting. All of it is in effect before the process's first instruction. If
// the system does not honour a field, the start fails with an error that names the field.
// Goroutines share the master's environment: with [GoroutineIsolation] it must be zero.
type Environment struct {
	// Env is added to the master's environment, as "KEY=value". Of two values for one key the later
	// counts. "KEY" alone removes the key. The master's environment is that of the beginning of the
	// generation: what Config.Load sets is in it, what the master sets later is not.
	Env []string

	// Dir is the working directory. "" = the one in which the program was started, wherever the
	// master has gone since; a relative one begins there. The name of that directory may go through
	// symbolic links (PWD has it, or the path by which the program was started): a reload follows
	// them again, and the workers of a generation stay in the directory that was found then.
	Dir string

	// Files are open files that the process gets by name, besides standard input, output and error:
	// at most 32. A worker asks for them with [Worker.File]. Other programs find them from
	// descriptor 3 on, behind their Listeners, in this order, and their names in COPPICE_FILES,
	// joined by colons. No other descriptor of the master reaches a process.
	Files []File

	// MaxProcs is GOMAXPROCS for Go programs: how many CPUs the process uses at
	// once. [FairShare] = the master's own, shared out evenly over the pool (rounded up).
	MaxProcs int

	// MemoryLimit is GOMEMLIMIT in bytes for Go programs: above it the garbage collector works
	// harder, but no allocation is refused. [FairShare] = nine tenths of the master's memory,
	// shared out evenly over the most workers that the pool may have ([Pool].Size or Autoscale.Max,
	// or more if it was scaled to more, and Spares), or of Resources.MemoryMax if that is less. The
	// master's memory is its own GOMEMLIMIT, or the limit of its cgroup, or the machine's memory.
	//
	// Zero is FairShare for the workers of this program, where a cgroup limits the master's memory
	// and nothing else is said of it: the master's environment has no GOMEMLIMIT ("off" is one),
	// and the pool no Resources.MemoryMax, Cgroup, Recycle.SoftMemory and Recycle.HardMemory.
	MemoryLimit int64

	// Rlimits are resource limits, see setrlimit(2). Raising a hard limit takes privileges. A Go
	// program raises its soft limit of nofile to the hard limit.
	Rlimits []Rlimit

	// Nice is the scheduling priority, -20 to 19; 0 = the master's. A value below
	// the master's takes privileges.
	Nice int

	// User, Group and Groups are the process's user and groups, by name or number; they take
	// privileges. With a User and no Group the process gets the user's own group, and with nil
	// Groups the user's own supplementary groups, as a login does. The master opens the sockets
	// that a worker asks for, with the master's rights. So such a pool may ask only for the tree's
	// Listeners and for what Pool.Listen allows.
	User   string
	Group  string
	Groups []string

	// Cgroup is the directory of a cgroup (version 2) in which the process is born; a relative path
	// starts at /sys/fs/cgroup. The cgroup must exist. Its limits are set by its creator.
	Cgroup string

	Sandbox Sandbox // the walls around the process; zero = none

	// Resources are limits of memory, CPU time and threads, of the process and all that it starts.
	Resources Resources
}

// FairShare, as MaxProcs or MemoryLimit, is an even share of what the master has.
const FairShare = -1

// maxExtraFiles bounds Environment.Files.
const maxExtraFiles = 32

// A File is an open file that a process gets. Exactly one of FD and Path is set.
type File struct {
	Name string // by which the process finds it; up to 64 bytes without space, colon, / and =

	// FD is the file's number in the master, 3 or more: it must be open there whenever the process
	// is started.
	FD int

	// Path is a path that the master opens at each start of the process, for reading, or with
	// Append for writing at its end; the file is created if need be (mode 0640). If users other
	// than root and the master's user can change the path, it must be a regular file with a single
	// name, reached by no symbolic link of theirs: otherwise the start fails. The start also fails,
	// with ENXIO, if Path is a pipe to write to that no process reads.
	Path   string
	Append bool
}

// String leaves out FD, whose number may differ in a child; the child reads the same specs.
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

// Unlimited, in an [Rlimit], means no limit.
const Unlimited = math.MaxUint64

func (e Environment) isZero() bool {
	return e.Env == nil && e.Dir == "" && e.Files == nil && e.MaxProcs == 0 && e.MemoryLimit == 0 &&
		e.Rlimits == nil && e.Nice == 0 && e.User == "" && e.Group == "" && e.Groups == nil && e.Cgroup == "" &&
		e.Sandbox.spec().IsZero() && e.Resources == Resources{}
}

// anotherUser reports whether the process gets another user, or other groups, than the master.
func (e Environment) anotherUser() bool { return e.User != "" || e.Group != "" || e.Groups != nil }

// trustedLess reports whether the process must not use the rights of the master.
func (e Environment) trustedLess() bool { return e.anotherUser() || !e.Sandbox.spec().IsZero() }

func (e Environment) validate(bad reportInvalid, path string, program bool) {
	e.Sandbox.validate(bad, path, program)
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
	e.Resources.validate(bad, path, e)
	if e.Nice < -20 || e.Nice > 19 {
		bad(path, in+"Nice", e.Nice, "is not between -20 and 19")
	}
}

// maxString bounds one argument or variable of a program, in bytes: MAX_ARG_STRLEN of execve(2),
// which includes the final zero.
const maxString = 32*4096 - 1

func tooLong(s string) string {
	return fmt.Sprintf("has %d bytes, more than %d: no program can be given it; use a file, or Config.Load", len(s), maxString)
}

// variables returns the environment of a process in a pool of n: base, then e's variables, then
// more.
func (e Environment) variables(base []string, n int, more ...string) []string {
	vars := base
	if e.MaxProcs != 0 {
		vars = append(vars[:len(vars):len(vars)], "GOMAXPROCS="+strconv.Itoa(e.maxProcs(n)))
	}
	if e.MemoryLimit != 0 {
		if limit := e.memoryLimit(n, process.MemoryLimit()); limit != 0 {
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

// memoryLimit returns the GOMEMLIMIT of each of n processes that have so many bytes together; 0 =
// none.
func (e Environment) memoryLimit(n int, together int64) int64 {
	if e.MemoryLimit != FairShare {
		return e.MemoryLimit
	}
	share := together / int64(n)
	if own := e.Resources.MemoryMax; own > 0 && (share == 0 || own < share) {
		share = own
	}
	return share / 10 * 9
}

// merge joins environments. Of two values for one key the later counts, at the place of the first,
// and a key without a value removes the key. No key is in the result twice, because programs differ
// in which of two values they take.
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

// environmentError returns the error of a field of an Environment that the system does not honour.
func environmentError(field string, value any, err error) error {
	return fmt.Errorf("Environment.%s %v: %w", field, value, err)
}
