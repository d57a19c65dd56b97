package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func errno(err error) syscall.Errno {
	e, _ := errors.AsType[syscall.Errno](err)
	return e
}

// setLimit sets a limit of this process, by name, to what is in use.
func setLimit(name string) {
	switch name {
	case "nproc": // counts the threads of a user, ours among them
		must(unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: 1, Max: 1}))
	case "nofile":
		entries, err := os.ReadDir("/proc/self/fd")
		must(err)
		must(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(len(entries)) - 1, Max: 1 << 10}))
	}
}

// spareThreads leaves Go's scheduler threads that it may use when it can have no
// further one.
func spareThreads() {
	var locked, spared sync.WaitGroup
	locked.Add(64)
	for range 64 {
		spared.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			locked.Done()
			locked.Wait()
		})
	}
	launcher()
	spared.Wait()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// TestStartErrors: what keeps a program from being started is an error that names
// the program and says why, and nothing is left of the attempt.
func TestStartErrors(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	busy, err := os.OpenFile(file("busy", "", 0o755), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cmd := func(path string) Command { return Command{Path: path, Args: []string{path}} }
	with := func(f func(c *Command)) Command {
		c := cmd("/bin/true")
		f(&c)
		return c
	}
	for _, tt := range []struct {
		name string
		cmd  Command
		want syscall.Errno
		says string
		root bool // root may
	}{
		{"not there", cmd(dir + "/nothing"), syscall.ENOENT, "", false},
		{"interpreter not there", cmd(file("script", "#!/no/such/shell\n", 0o755)), syscall.ENOENT, "interpreter", false},
		{"not executable", cmd(file("text", "text", 0o644)), syscall.EACCES, "", false},
		{"a directory", cmd(dir), syscall.EACCES, "", false},
		{"no program", cmd(file("words", "echo hello\n", 0o755)), syscall.ENOEXEC, "#!", false},
		{"being written", cmd(busy.Name()), syscall.ETXTBSY, "", false},
		{"a zero byte", with(func(c *Command) { c.Args = append(c.Args, "a\x00b") }), syscall.EINVAL, "zero byte", false},
		{"too many arguments", with(func(c *Command) { c.Args = append(c.Args, strings.Repeat("a", 1<<18)) }), syscall.E2BIG, "ulimit -s", false},
		{"too many files", with(func(c *Command) { c.Files = make([]*os.File, MaxFiles+1) }), syscall.EMFILE, "Files", false},
		{"no directory", with(func(c *Command) { c.Dir = dir + "/nothing" }), syscall.ENOENT, "Dir " + dir + "/nothing", false},
		{"a file as directory", with(func(c *Command) { c.Dir = busy.Name() }), syscall.ENOTDIR, "Dir " + busy.Name(), false},
		{"an unknown limit", with(func(c *Command) { c.Rlimits = []Rlimit{{"love", 1, 1}} }), syscall.EINVAL, "Rlimits love", false},
		{"soft above hard", with(func(c *Command) { c.Rlimits = []Rlimit{{"nofile", 20, 10}} }), syscall.EINVAL, "Rlimits nofile", false},
		{"not a cgroup", with(func(c *Command) { c.Cgroup = null }), syscall.EBADF, "Cgroup /dev/null", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := begin(t, tt.cmd)
			if errno(err) != tt.want || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want %v and %q", err, tt.want, tt.says)
			}
			if p, ok := errors.AsType[*os.PathError](err); !ok || p.Path != tt.cmd.Args[0] {
				t.Errorf("%v is not a PathError of %s", err, tt.cmd.Args[0])
			}
			if err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); !errors.Is(err, unix.ECHILD) {
				t.Errorf("a child is left: %v", err)
			}
		})
	}
	// Test limits of a user or a process in a separate process.
	for _, tt := range []struct {
		limit string
		want  syscall.Errno
		user  bool // root has no such limit
	}{{"nproc", syscall.EAGAIN, true}, {"nofile", syscall.EMFILE, false}} {
		t.Run(tt.limit, func(t *testing.T) {
			cmd := Command{Env: []string{"LIMIT=" + tt.limit}}
			if tt.user && os.Geteuid() == 0 {
				cmd.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
			}
			c := run(t, "starts", cmd)
			if said := c.line(); !strings.Contains(said, "start /bin/true: "+tt.want.Error()) {
				t.Errorf("error %q", said)
			}
			if same := c.line(); same != "true" {
				t.Errorf("not %v by errors.AsType", tt.want)
			}
		})
	}
	// What only root may.
	for _, tt := range []struct {
		name string
		f    func(c *Command)
		says string
	}{
		{"nice", func(c *Command) { c.Nice = -5 }, "Nice -5"},
		{"user", func(c *Command) { c.Credential = &syscall.Credential{Uid: 1, Gid: 1} }, "user 1, group 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if os.Geteuid() == 0 {
				t.Skip("root may")
			}
			_, err := begin(t, with(tt.f))
			if e := errno(err); e != syscall.EPERM && e != syscall.EACCES || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want %q", err, tt.says)
			}
		})
	}
}

// TestRefusedSystemCalls: a seccomp filter that refuses what is newer than its
// author's kernel, by whatever errno, costs no start: a process gets no descriptor
// that is not its own, and is signalled.
func TestRefusedSystemCalls(t *testing.T) {
	for _, e := range refusals {
		t.Run(unix.ErrnoName(e), func(t *testing.T) {
			c := run(t, "refused", Command{Env: []string{fmt.Sprintf("REFUSE=%d", e)}})
			if n := c.line(); n != "0" {
				t.Errorf("%s descriptors reached a process that is given none", n)
			}
			if ended := c.line(); ended != "true" {
				t.Errorf("it did not end by the signal")
			}
		})
	}
}

// refusals are the errnos by which seccomp profiles refuse.
var refusals = []syscall.Errno{syscall.EPERM, syscall.EACCES, syscall.EINVAL, syscall.ENOSYS}

// TestRefusalIsNamed: a system call that a start cannot do without, and that a seccomp
// filter refuses by whatever errno, is named in the error, with what helps, and so is the
// option that takes it. Nothing is left of the attempt.
func TestRefusalIsNamed(t *testing.T) {
	for name, says := range map[string][]string{
		"clone":    {"clone or execve: ", needsClone},
		"execve":   {"clone or execve: ", needsClone},
		"dup3":     {"dup3 or fcntl: ", needsFiles},
		"pidfd":    {"clone with CLONE_PIDFD: ", needsPidfd},
		"waitid":   {"waitid: ", needsPidfd},
		"setpgid":  {"setpgid: ", needsGroup},
		"prctl":    {"prctl with PR_SET_PDEATHSIG: ", needsDeath},
		"prlimit":  {"Rlimits nofile 128:256: prlimit: ", "CAP_SYS_RESOURCE"},
		"priority": {"Nice 5: setpriority: ", "CAP_SYS_NICE"},
	} {
		for _, e := range refusals {
			t.Run(name+"/"+unix.ErrnoName(e), func(t *testing.T) {
				t.Parallel()
				c := run(t, "refusal", Command{Env: []string{"CALL=" + name, fmt.Sprintf("REFUSE=%d", e)}})
				said := c.line()
				for _, part := range append(says, "start /bin/true: ", e.Error()) {
					if !strings.Contains(said, part) && (name != "prlimit" || e != syscall.EINVAL || part != "CAP_SYS_RESOURCE") {
						t.Errorf("error %q, want %q in it", said, part)
					}
				}
				if children := c.line(); children != "no child processes" {
					t.Errorf("a child is left: %s", children)
				}
			})
		}
	}
}

// TestStoppedBeforeItsExec: a child that is stopped between its fork and its exec, as another
// process of its user may do, is continued, and this program goes on meanwhile.
func TestStoppedBeforeItsExec(t *testing.T) {
	cmd := Command{Path: "/bin/true", Args: []string{"/bin/true"}}
	c := cmd.calls(cmd.Path, nil)
	stop := childCall{number: unix.SYS_KILL, args: [5]uintptr{0, uintptr(unix.SIGSTOP)}} // its group
	exec := len(c.calls) - 1
	calls := append(slices.Clone(c.calls[:exec]), stop, stop, stop, c.calls[exec])

	started := make(chan error)
	var p *Process
	launcher() <- func() {
		pid, pidfd, _, err := fork(nil, calls)
		if err == nil {
			p, err = hold(pid, pidfd)
		}
		runtime.KeepAlive(c)
		started <- err
	}
	for {
		runtime.GC() // stops every goroutine
		select {
		case err := <-started:
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if <-p.Done(); p.Exit().Code != 0 || p.Exit().Signal != 0 {
				t.Errorf("it has ended by %+v", p.Exit())
			}
			return
		default:
		}
	}
}

// TestRaisedLimitIsKept: a hard limit that is raised before the user changes is not lowered again:
// to raise it then takes a privilege.
func TestRaisedLimitIsKept(t *testing.T) {
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}
	if now.Max == unix.RLIM_INFINITY {
		t.Skip("there is no higher limit")
	}
	cmd := Command{
		Path: "/bin/true", Args: []string{"/bin/true"},
		Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Rlimits: []Rlimit{{"nofile", 20, now.Max + 100}},
	}
	c := cmd.calls(cmd.Path, nil)
	raised := 0
	for _, call := range c.calls {
		if call.number != unix.SYS_PRLIMIT64 || call.args[1] != unix.RLIMIT_NOFILE {
			continue
		}
		for _, p := range c.held {
			if l, ok := p.(*unix.Rlimit); ok && uintptr(unsafe.Pointer(l)) == call.args[2] {
				if raised++; l.Max != now.Max+100 {
					t.Errorf("call %d has the hard limit %d, and it is to be %d", raised, l.Max, now.Max+100)
				}
			}
		}
	}
	if raised != 2 {
		t.Errorf("%d calls set the limit, want one before setuid and one after", raised)
	}
}

// TestRaisedLimit: a process of a user has a hard limit that only the master may raise.
func TestRaisedLimit(t *testing.T) {
	if os.Geteuid() != 0 || ownCapabilities()&(1<<unix.CAP_SYS_RESOURCE) == 0 {
		t.Skip("needs root with CAP_SYS_RESOURCE")
	}
	c := run(t, "raises", Command{})
	if soft, hard, user := c.line(), c.line(), c.line(); soft != "700" || hard != "800" || user != "65534" {
		t.Errorf("limits %s and %s, user %s", soft, hard, user)
	}
}

// TestFewDescriptors: a start takes what numbers there are, below its own files' too, and
// when these do not do the error says what the limit is, and what is needed at least: with
// that it does. So it is with a limit that is lowered while the program runs.
func TestFewDescriptors(t *testing.T) {
	c := run(t, "few", Command{Env: []string{"FILES=11"}})
	least := 0
	for {
		said := c.line()
		if said == "started" {
			break
		}
		var limit, need int
		_, text, _ := strings.Cut(said, "start few: too many open files: RLIMIT_NOFILE (ulimit -n, LimitNOFILE= of systemd) is ")
		if n, err := fmt.Sscanf(text, "%d, this start takes %d at least", &limit, &need); n != 2 || err != nil {
			t.Fatalf("error %q", said)
		}
		if need <= limit || need > 40 {
			t.Fatalf("it fails with %d descriptors, and says that it takes %d", limit, need)
		}
		least = need
	}
	if least < 13 {
		t.Errorf("11 files were had with %d descriptors", least)
	}
}

// TestUnreadableExecutable: a program that this one may run and not read, as with
// mode 0711, is held and run.
func TestUnreadableExecutable(t *testing.T) {
	dir, err := os.MkdirTemp("", "") //nolint:usetesting // t.TempDir is in a directory that only its owner may enter
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	mode := os.FileMode(0o711)
	if os.Getuid() != 0 { // it is the owner
		mode = 0o111
	}
	if err := os.WriteFile(dir+"/sh", b, mode); err != nil {
		t.Fatal(err)
	}
	c := run(t, "unreadable", Command{Env: []string{"RUN=" + dir + "/sh"}})
	if refused := c.line(); refused != "true" {
		t.Fatal("the program may be read: the test shows nothing")
	}
	if code := c.line(); code != "7" {
		t.Errorf("exit code %s, want 7", code)
	}
}
