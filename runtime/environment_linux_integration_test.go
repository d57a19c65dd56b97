//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// fileVar is the variable in which the master and its children find the directory of a test's
// files.
const fileVar = "COPPICE_TEST_DIR"

func init() {
	trees["environment"] = func() coppice.Config {
		dir := os.Getenv(fileVar)
		cfg := pool(2, func(ctx context.Context, w *coppice.Worker) error {
			if err := tell(ctx, w, workerReport{Text: describeSelf(w)}); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
		web := cfg.Children[0].(coppice.Pool)
		web.Environment = coppice.Environment{
			Env: []string{"COLOUR=red", "GREETING", "COLOUR=blue"}, Dir: dir,
			Files: []coppice.File{
				{Name: "log", Path: filepath.Join(dir, "log"), Append: true},
				{Name: "given", FD: 900},
			},
			MaxProcs: coppice.FairShare, MemoryLimit: 100 << 20, Nice: 2,
			Rlimits: []coppice.Rlimit{{Name: "nofile", Soft: 512, Hard: 700}, {Name: "core", Soft: 0, Hard: 0}},
		}
		cfg.Children[0] = web
		return cfg
	}
	trees["nobody"] = func() coppice.Config {
		cfg := pool(2, func(ctx context.Context, w *coppice.Worker) error {
			ln, err := w.Listen("tcp", os.Getenv("ADDRESS"))
			if err != nil {
				return err
			}
			if _, err := w.Listen("tcp", "127.0.0.1:0"); !errors.Is(err, coppice.ErrListenDenied) {
				return fmt.Errorf("a port that is no listener's of the tree: %w", err)
			}
			groups, err := os.Getgroups()
			if err != nil {
				return err
			}
			f, err := os.OpenFile("/dev/stderr", os.O_WRONLY, 0) // a pipe of the master's
			if err != nil {
				return err
			}
			defer f.Close()
			return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				fmt.Fprintf(rw, "uid %d, gid %d, groups %v", os.Getuid(), os.Getgid(), groups)
			})})
		})
		web := cfg.Children[0].(coppice.Pool)
		web.Environment = coppice.Environment{User: "nobody", Groups: []string{"7"}}
		cfg.Children = []coppice.ChildSpec{coppice.ListenerSpec{Name: "http", Network: "tcp", Address: os.Getenv("ADDRESS")}, web}
		return cfg
	}
	for name, e := range refused {
		trees["refused "+name] = func() coppice.Config {
			cfg := pool(1, idle)
			web := cfg.Children[0].(coppice.Pool)
			web.Environment = e.environment
			cfg.Children[0] = web
			return cfg
		}
	}
}

// describeSelf prints a worker's environment, one thing a line.
func describeSelf(w *coppice.Worker) string {
	var s strings.Builder
	name, err := os.ReadFile("/proc/self/comm")
	fmt.Fprintln(&s, "name", strings.TrimSpace(string(name)), err)
	cwd, err := os.Getwd()
	fmt.Fprintln(&s, "cwd", cwd, err)
	seen := map[string]int{}
	for _, kv := range os.Environ() {
		k, _, _ := strings.Cut(kv, "=")
		seen[k]++
		if seen[k] > 1 || strings.HasPrefix(k, "COPPICE_CH") || strings.HasPrefix(k, "COPPICE_FILES") {
			fmt.Fprintln(&s, "variable", kv)
		}
	}
	_, greeted := os.LookupEnv("GREETING")
	fmt.Fprintln(&s, "colour", os.Getenv("COLOUR"), greeted)
	fmt.Fprintln(&s, "procs", runtime.GOMAXPROCS(0), "memory", debug.SetMemoryLimit(-1))
	for _, resource := range []int{unix.RLIMIT_NOFILE, unix.RLIMIT_CORE} {
		var l unix.Rlimit
		err := unix.Getrlimit(resource, &l)
		fmt.Fprintln(&s, "limit", l.Max, err)
	}
	tasks, _ := filepath.Glob("/proc/self/task/*")
	for _, task := range tasks {
		var tid int
		_, _ = fmt.Sscan(filepath.Base(task), &tid)
		if nice, err := unix.Getpriority(unix.PRIO_PROCESS, tid); err == nil && 20-nice != 2 {
			fmt.Fprintln(&s, "nice of a thread", 20-nice)
		}
	}
	if f, err := w.File("log"); err != nil {
		fmt.Fprintln(&s, err)
	} else {
		fmt.Fprintln(f, "from", w.Name())
		f.Close()
	}
	if f, err := w.File("given"); err != nil {
		fmt.Fprintln(&s, err)
	} else {
		b, err := io.ReadAll(io.NewSectionReader(f, 0, 100))
		fmt.Fprintln(&s, "given", string(b), err)
		f.Close()
	}
	_, err = w.File("other")
	fmt.Fprintln(&s, "other", errors.Is(err, os.ErrNotExist))
	// Open files that neither Go nor fdipc made.
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		own := strings.HasPrefix(to, "/proc/") || strings.HasPrefix(to, "/sys/fs/cgroup/") || strings.HasPrefix(to, "/memfd:") || to == "/dev/null"
		if err == nil && strings.HasPrefix(to, "/") && !own {
			fmt.Fprintln(&s, "file", e.Name(), filepath.Base(to))
		}
	}
	out, err := exec.Command("ls", "-l", "/proc/self/fd").CombinedOutput()
	if err != nil || strings.Contains(string(out), "given") || strings.Contains(string(out), "log") || strings.Contains(string(out), "socket") {
		fmt.Fprintln(&s, "a grandchild has", string(out), err)
	}
	return s.String()
}

// TestEnvironment: a worker has the environment of its pool, and nothing else of the master's.
func TestEnvironment(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(fileVar, dir)
	t.Setenv("GREETING", "hello")
	given, err := os.Create(filepath.Join(dir, "given"))
	if err != nil {
		t.Fatal(err)
	}
	defer given.Close()
	fmt.Fprint(given, "by number")
	if err := unix.Dup2(int(given.Fd()), 900); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(900)
	open, err := os.Create(filepath.Join(dir, "open in the master, not close-on-exec"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	fd, err := unix.Dup(int(open.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)

	p := startTree(t, "environment")
	procs := (runtime.GOMAXPROCS(0) + 1) / 2
	name := filepath.Base(os.Args[0])
	want := fmt.Sprintf(`name %s <nil>
cwd %s <nil>
colour blue false
procs %d memory %d
limit 700 <nil>
limit 0 <nil>
given by number <nil>
other true
file 3 log
file 4 given
`, name[:min(len(name), 15)], dir, procs, 100<<20)
	for slot, r := range p.reported(2) {
		if r.Text != want {
			t.Errorf("web/%d sees\n%s\nwant\n%s", slot, r.Text, want)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil || !strings.Contains(string(b), "from web/0\n") || !strings.Contains(string(b), "from web/1\n") {
		t.Errorf("the log is %q, %v", b, err)
	}
}

// TestEnvironmentOfProgram: a foreign program has exactly the descriptors that its spec gives it,
// their names, and none of the variables that concern only the master.
func TestEnvironmentOfProgram(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	os.Unsetenv("NOTIFY_SOCKET")
	t.Setenv("LISTEN_FDS", "2")
	dir := t.TempDir()
	cfg, out := forest(t, coppice.Process{
		Name: "program", Command: []string{"./script"},
		Environment: coppice.Environment{
			Env: []string{"A=1"}, Dir: dir, Files: []coppice.File{{Name: "a", Path: "/proc/version"}, {Name: "b", Path: "/dev/zero"}},
		},
	})
	script := "#!/bin/sh\necho names $COPPICE_FILES, $A$LISTEN_FDS, $(pwd)\n(cd /proc/$$/fd && for n in *; do [ $n -lt 10 ] && echo fd $n $(readlink $n); done)\necho end\nsleep 3600\n"
	if err := os.WriteFile(filepath.Join(dir, "script"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	rt, err := coppice.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := rt.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		noneLeft(t)
	}()
	out.with(t, "program| end")
	var got []string
	for line := range strings.Lines(out.String()) {
		line = strings.TrimSpace(strings.TrimPrefix(line, "program| "))
		if strings.Contains(line, "pipe:") {
			line = line[:len("fd 1 pipe:")]
		}
		got = append(got, line)
	}
	want := "names a:b, 1, " + dir + "\nfd 0 /dev/null\nfd 1 pipe:\nfd 2 pipe:\nfd 3 /proc/version\nfd 4 /dev/zero\nend"
	if strings.Join(got, "\n") != want {
		t.Errorf("it says\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}

// TestPrivilegedPort: a master that is root binds a port below 1024, and its workers serve it as
// the user nobody, from an executable that this user could not find by its path (P38).
func TestPrivilegedPort(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has privileged ports, and can start processes of another user")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip(err)
	}
	for port := 1023; ; port-- {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			t.Setenv("ADDRESS", ln.Addr().String())
			ln.Close()
			break
		}
		if port == 512 {
			t.Skip(err)
		}
	}
	p := startTree(t, "nobody")
	want := fmt.Sprintf("uid %s, gid %s, groups [7]", nobody.Uid, nobody.Gid)
	for range 4 { // workers in turn, from a process that is root
		if got := get(t, os.Getenv("ADDRESS")); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	// A restarted worker has the user nobody, too.
	before := p.pid("web/0")
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "replaced", func() bool { now := p.processes()["web/0"]; return now != 0 && now != before })
	for range 4 {
		if got := get(t, os.Getenv("ADDRESS")); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// refused are environments that the system does not honour.
var refused = map[string]struct {
	environment coppice.Environment
	says        string
	is          error
}{
	"user":      {coppice.Environment{User: "no-such-user"}, "Environment.User no-such-user", user.UnknownUserError("no-such-user")},
	"group":     {coppice.Environment{Group: "no-such-group"}, "Environment.Group no-such-group", user.UnknownGroupError("no-such-group")},
	"cgroup":    {coppice.Environment{Cgroup: "no/such/cgroup"}, "Environment.Cgroup no/such/cgroup", os.ErrNotExist},
	"no cgroup": {coppice.Environment{Cgroup: "/etc"}, "Cgroup /etc", syscall.EBADF},
	"file":      {coppice.Environment{Files: []coppice.File{{Name: "a", Path: "/no/such/file"}}}, "Environment.Files a", os.ErrNotExist},
	"number":    {coppice.Environment{Files: []coppice.File{{Name: "a", FD: 901}}}, "Environment.Files a: descriptor 901", syscall.EBADF},
	"directory": {coppice.Environment{Dir: "/no/such/directory"}, "Dir /no/such/directory", os.ErrNotExist},
	"limit":     {coppice.Environment{Rlimits: []coppice.Rlimit{{Name: "nofile", Soft: 1 << 60, Hard: 1 << 60}}}, "Rlimits nofile", syscall.EPERM},
}

// TestEnvironmentRefused: a setting that the system does not honour fails the start, with an error
// that names the child, the field, and the cause.
func TestEnvironmentRefused(t *testing.T) {
	for name, tt := range refused {
		t.Run(name, func(t *testing.T) {
			t.Setenv(treeVar, "refused "+name)
			_, err := coppice.Start(t.Context(), withReports(trees["refused "+name](), nil))
			if err == nil || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "web/0") || !errors.Is(err, tt.is) {
				t.Errorf("error %v, want %q around %v", err, tt.says, tt.is)
			}
			noneLeft(t)
		})
	}
}

// TestCgroup: a worker is born in the cgroup that it was given.
func TestCgroup(t *testing.T) {
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		dir := filepath.Join(mount, fmt.Sprintf("coppice-test-%d", os.Getpid()))
		if _, err := os.Stat(mount + "/cgroup.controllers"); err != nil {
			continue
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Skip("no cgroup can be made here: ", err)
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
		cfg, out := forest(t, coppice.Process{
			Name: "program", Command: []string{"sh", "-c", "cat /proc/self/cgroup; echo end; sleep 3600"},
			Environment: coppice.Environment{Cgroup: filepath.Base(dir)}, Ready: coppice.Ready{Line: "end"},
		})
		rt, err := coppice.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		out.with(t, "program| 0::/"+filepath.Base(dir))
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		noneLeft(t)
		return
	}
	t.Skip("no cgroup of version 2 is mounted")
}
