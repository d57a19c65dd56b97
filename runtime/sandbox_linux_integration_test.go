//go:build linux

package coppice_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// hostile are the attacks of a hostile worker. Each returns nil if it succeeds.
var hostile = map[string]func(ctx context.Context, w *coppice.Worker) error{
	"write outside its paths": func(context.Context, *coppice.Worker) error {
		return os.WriteFile(filepath.Join(os.Getenv(fileVar), "other", "file"), nil, 0o644)
	},
	"write in its paths": func(context.Context, *coppice.Worker) error {
		return os.WriteFile(filepath.Join(os.Getenv(fileVar), "own", strconv.Itoa(os.Getpid())), nil, 0o644)
	},
	"truncate": func(context.Context, *coppice.Worker) error {
		return os.Truncate(filepath.Join(os.Getenv(fileVar), "kept"), 0)
	},
	"read the master's environ": func(context.Context, *coppice.Worker) error {
		_, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", os.Getppid()))
		return err
	},
	"connect out": func(context.Context, *coppice.Worker) error {
		c, err := net.Dial("tcp", os.Getenv("VICTIM"))
		if err == nil {
			c.Close()
		}
		return err
	},
	"connect out by fast open": func(context.Context, *coppice.Worker) error {
		at, err := net.ResolveTCPAddr("tcp", os.Getenv("VICTIM"))
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN, &unix.SockaddrInet4{Port: at.Port, Addr: [4]byte(at.IP.To4())})
	},
	"connect out by another TCP": func(context.Context, *coppice.Worker) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
		if err == nil {
			unix.Close(fd)
		}
		return err
	},
	"bind": func(context.Context, *coppice.Worker) error {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err == nil {
			ln.Close()
		}
		return err
	},
	"exec": func(context.Context, *coppice.Worker) error {
		p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
		if err == nil {
			_, err = p.Wait()
		}
		return err
	},
	"exec in place": func(context.Context, *coppice.Worker) error {
		err := syscall.Exec("/", nil, nil) // EACCES of what is no file, unless it is denied
		if errors.Is(err, unix.EACCES) {
			return nil
		}
		return err
	},
	"fork bomb": func(context.Context, *coppice.Worker) error {
		pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD)|unix.CLONE_VFORK|unix.CLONE_NEWNET, 0, 0, 0, 0, 0)
		if errno == 0 && pid == 0 {
			for {
				_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
		}
		if errno != 0 {
			return errno
		}
		_, err := unix.Wait4(int(pid), nil, 0, nil)
		return err
	},
	"trace the master": func(context.Context, *coppice.Worker) error { // the check is that of ptrace
		var b [8]byte
		local, remote := unix.Iovec{Base: &b[0], Len: 8}, unix.RemoteIovec{Base: uintptr(unsafe.Pointer(&b)), Len: 8}
		_, err := unix.ProcessVMReadv(os.Getppid(), []unix.Iovec{local}, []unix.RemoteIovec{remote}, 0)
		if errors.Is(err, unix.EFAULT) {
			return nil
		}
		return err
	},
	"signal the master":             func(context.Context, *coppice.Worker) error { return unix.Kill(os.Getppid(), 0) },
	"signal a thread of the master": func(context.Context, *coppice.Worker) error { return unix.Tgkill(os.Getppid(), os.Getppid(), 0) },
	"signal the master by a descriptor": func(context.Context, *coppice.Worker) error {
		_, err := unix.FcntlInt(0, unix.F_SETOWN, os.Getppid())
		return err
	},
	"limit the master": func(context.Context, *coppice.Worker) error {
		var l unix.Rlimit
		return unix.Prlimit(os.Getppid(), unix.RLIMIT_CPU, nil, &l)
	},
	"send to a socket with a name": func(context.Context, *coppice.Worker) error {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(p[1])
		defer unix.Close(p[0])
		if err := unix.Sendto(p[0], nil, 0, &unix.SockaddrUnix{Name: filepath.Join(os.Getenv(fileVar), "master.sock")}); !errors.Is(err, unix.EPROTOTYPE) {
			return err
		}
		return nil
	},
	"signal siblings": func(context.Context, *coppice.Worker) error {
		processes, err := os.ReadDir("/proc")
		for _, p := range processes {
			pid, _ := strconv.Atoi(p.Name())
			if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && pid != os.Getpid() {
				f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
				if f[1] == strconv.Itoa(os.Getppid()) {
					return unix.Kill(pid, 0)
				}
			}
		}
		return cmp.Or(err, error(unix.ESRCH))
	},
	"an abstract socket": func(context.Context, *coppice.Worker) error { return dialUnix("@" + os.Getenv(fileVar)) },
	"the master's Unix socket": func(context.Context, *coppice.Worker) error {
		return dialUnix(filepath.Join(os.Getenv(fileVar), "master.sock"))
	},
	"memory bomb": func(context.Context, *coppice.Worker) error {
		b, err := unix.Mmap(-1, 0, 64<<30, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
		if err == nil {
			err = unix.Munmap(b)
		}
		return err
	},
	"fd bomb": func(context.Context, *coppice.Worker) (err error) {
		var fds []int
		for len(fds) < 300 && err == nil {
			var fd int
			if fd, err = unix.Dup(0); err == nil {
				fds = append(fds, fd)
			}
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
		return err
	},
	"give a file away": func(context.Context, *coppice.Worker) error {
		return os.Chown(filepath.Join(os.Getenv(fileVar), "kept"), 1, 1)
	},
	"a path of somebody else's": func(ctx context.Context, w *coppice.Worker) error {
		ln, err := w.Listen("unix", filepath.Join(os.Getenv(fileVar), "asked-"+w.Name()[:strings.IndexByte(w.Name(), '/')]))
		if err == nil {
			ln.Close()
		}
		return err
	},
	"a user namespace": func(context.Context, *coppice.Worker) error {
		return unix.Unshare(unix.CLONE_NEWNET)
	},
}

func dialUnix(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: name})
}

// walls are sandboxes of one wall each, and the attacks that it stops. The worker within "none"
// succeeds with all of them: so each of them is stopped by its wall, and by nothing else.
var walls = map[string]struct {
	env   func() coppice.Environment
	stops map[string]error
}{
	"none": {func() coppice.Environment { return coppice.Environment{} }, nil},
	"files": {func() coppice.Environment {
		return coppice.Environment{Sandbox: coppice.Sandbox{Read: []string{"/bin"}, Write: []string{os.Getenv(fileVar) + "/own"}, Execute: libraries()}}
	}, map[string]error{
		"write outside its paths": unix.EACCES, "truncate": unix.EACCES, "read the master's environ": unix.EACCES, "exec": unix.EACCES,
		"trace the master": unix.EPERM, "write in its paths": nil, "a path of somebody else's": unix.EACCES,
	}},
	"tcp": {func() coppice.Environment {
		return coppice.Environment{Sandbox: coppice.Sandbox{NoTCP: true}}
	}, map[string]error{
		"connect out": unix.EACCES, "bind": unix.EACCES, "connect out by fast open": unix.EOPNOTSUPP, "connect out by another TCP": unix.EPROTONOSUPPORT,
	}},
	"scoped": {func() coppice.Environment {
		return coppice.Environment{Sandbox: coppice.Sandbox{Scoped: true}}
	}, map[string]error{"limit the master": unix.EPERM, "signal a thread of the master": unix.EPERM, "signal the master": unix.EPERM, "signal siblings": unix.EPERM, "an abstract socket": unix.EPERM, "trace the master": unix.EPERM}},
	"network": {func() coppice.Environment {
		return coppice.Environment{Sandbox: coppice.Sandbox{NoNetwork: true}}
	}, map[string]error{"connect out": unix.ENETUNREACH, "an abstract socket": unix.ECONNREFUSED}},
	"capabilities": {func() coppice.Environment {
		return coppice.Environment{Sandbox: coppice.Sandbox{NoCapabilities: true}}
	}, map[string]error{"give a file away": unix.EPERM, "a user namespace": unix.EPERM, "fork bomb": unix.EPERM}},
	"compute": {func() coppice.Environment {
		return coppice.Environment{Sandbox: coppice.Sandbox{Syscalls: "compute", DenyWithError: true}}
	}, map[string]error{
		"connect out": unix.EPERM, "bind": unix.EPERM, "exec": unix.EPERM, "exec in place": unix.EPERM, "fork bomb": unix.EPERM, "signal siblings": unix.EPERM,
		"signal a thread of the master": unix.EPERM, "signal the master by a descriptor": unix.EPERM, "limit the master": unix.EPERM, "send to a socket with a name": unix.EPROTONOSUPPORT,
		"the master's Unix socket": unix.EPERM, "an abstract socket": unix.EPERM, "trace the master": unix.EPERM, "a user namespace": unix.EPERM,
	}},
	"service": {func() coppice.Environment {
		return coppice.Environment{Sandbox: coppice.Sandbox{Syscalls: "service", DenyWithError: true}}
	}, map[string]error{"trace the master": unix.EPERM, "a user namespace": unix.EPERM, "fork bomb": unix.EPERM, "exec": nil, "connect out": nil, "bind": nil}},
	"limits": {func() coppice.Environment { return coppice.Environment{Rlimits: limits()} }, map[string]error{"memory bomb": unix.ENOMEM, "fd bomb": unix.EMFILE}},
	"all": {func() coppice.Environment {
		return coppice.Environment{
			Rlimits: limits(), Nice: 1,
			Sandbox: coppice.Sandbox{NoFiles: true, Execute: libraries(), NoTCP: true, Scoped: true, NoNetwork: true, NoCapabilities: true, Syscalls: "compute", DenyWithError: true},
		}
	}, nil},
}

func init() {
	trees["hostile"] = func() coppice.Config {
		attack := func(ctx context.Context, w *coppice.Worker) error {
			said := map[string]uint64{}
			for name, f := range hostile {
				result := make(chan error)
				go func() {
					runtime.LockOSThread() // which ends with the goroutine: an attack may spoil it
					result <- f(ctx, w)
				}()
				err := <-result
				errno, known := errors.AsType[syscall.Errno](err)
				if err != nil && !known {
					return fmt.Errorf("%s: %w", name, err)
				}
				said[name] = uint64(errno)
			}
			b, err := json.Marshal(said)
			if err != nil {
				return err
			}
			ln, err := w.Listener(ctx, "http")
			if err != nil {
				return err
			}
			if err := tell(ctx, w, workerReport{Text: string(b)}); err != nil {
				return err
			}
			return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(rw, w.Name())
			})})
		}
		cfg := coppice.Config{Children: []coppice.ChildSpec{coppice.ListenerSpec{Name: "http", Network: "tcp", Address: "127.0.0.1:0"}}}
		for _, name := range append([]string{"none"}, slices.DeleteFunc(sorted(walls), func(n string) bool { return n == "none" })...) {
			cfg.Children = append(cfg.Children, coppice.Pool{Name: name, Size: 1, Worker: attack, Environment: walls[name].env()})
		}
		return cfg
	}
	trees["denied"] = func() coppice.Config {
		cfg := pool(1, func(ctx context.Context, w *coppice.Worker) error {
			if err := w.Ready(); err != nil {
				return err
			}
			_, err := unix.MemfdSecret(0)
			return err
		})
		web := cfg.Children[0].(coppice.Pool)
		web.Restart = supervisor.Temporary
		web.Environment.Sandbox = coppice.Sandbox{Syscalls: "service", Deny: []string{"memfd_secret"}}
		cfg.Children[0] = web
		cfg.Children = append(cfg.Children, coppice.Process{
			Name: "program", Restart: supervisor.Temporary, Command: []string{"/bin/sh", "-c", "echo > closed || echo file: $?; while [ ! -e seen ]; do :; done; kill -0 $PPID"},
			Environment: coppice.Environment{Dir: os.Getenv(fileVar), Sandbox: coppice.Sandbox{
				Read: []string{"/"}, Write: []string{"/dev/null"}, Execute: append(libraries(), "/bin", "/usr/bin"), Syscalls: "compute", Allow: []string{"execve"},
			}},
		})
		return cfg
	}
}

// limits are those of memory and descriptors. The race detector reserves terabytes.
func limits() []coppice.Rlimit {
	all := []coppice.Rlimit{{Name: "nofile", Soft: 256, Hard: 256}, {Name: "as", Soft: 32 << 30, Hard: 32 << 30}}
	if raced() {
		return all[:1]
	}
	return all
}

// libraries are what a program with shared libraries takes, as the test binary may be.
func libraries() []string {
	return slices.DeleteFunc([]string{"/lib", "/lib64", "/usr/lib", "/etc/ld.so.cache"}, func(path string) bool {
		_, err := os.Stat(path)
		return err != nil
	})
}

func sorted[V any](m map[string]V) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// TestHostileWorker: each attack of a hostile worker is stopped by its wall, and succeeds without
// it. Within all walls at once, in a network namespace without interfaces, a worker serves.
func TestHostileWorker(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only what root may do shows that a wall stops it")
	}
	dir := t.TempDir()
	for _, sub := range []string{"own", "other"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "kept"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv(fileVar, dir)
	for _, at := range [][2]string{{"tcp", "127.0.0.1:0"}, {"unix", filepath.Join(dir, "master.sock")}, {"unix", "@" + dir}} {
		ln, err := net.Listen(at[0], at[1])
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		if at[0] == "tcp" {
			t.Setenv("VICTIM", ln.Addr().String())
		}
	}
	p := startTree(t, "hostile")
	var without map[string]syscall.Errno // what the system stops by itself
	for range walls {
		var r workerReport
		select {
		case r = <-p.reports:
		case <-time.After(runtimetest.Patience):
			t.Fatal("no further report")
		}
		wall, _, _ := strings.Cut(r.From, "/")
		t.Run(wall, func(t *testing.T) {
			var said map[string]syscall.Errno
			if err := json.Unmarshal([]byte(r.Text), &said); err != nil {
				t.Fatal(err)
			}
			if wall == "none" { // which is the first
				without = said
			}
			for attack, errno := range said {
				want, stops := walls[wall].stops[attack]
				t.Run(attack, func(t *testing.T) {
					if attack == "memory bomb" && raced() {
						t.Skip("the race detector needs the address space")
					}
					if e := without[attack]; e != 0 {
						t.Skipf("here it fails without walls: %v", e)
					}
					switch {
					case wall == "all":
						if errno == 0 {
							t.Error("it succeeds")
						}
					case stops:
						if want == nil && errno != 0 || want != nil && !errors.Is(errno, want) {
							t.Errorf("%v, want %v", errno, want)
						}
					}
				})
			}
		})
	}
	// The tree shows the walls, and the threads of the master have none.
	if shown := p.Snapshot().String(); !strings.Contains(shown, "sandbox: no-new-privileges tcp(none) listen(tree)") {
		t.Errorf("the tree is\n%s", shown)
	}
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(tasks) == 0 {
		t.Fatal(err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err == nil && (!bytes.Contains(b, []byte("\nSeccomp:\t0\n")) || !bytes.Contains(b, []byte("\nNoNewPrivs:\t0\n"))) {
			t.Errorf("a thread of the master is within walls:\n%s", b)
		}
	}
	seen := map[string]bool{}
	addr := p.Listeners()[0].Addr.String()
	runtimetest.Eventually(t, "an answer by the worker within all walls", func() bool {
		seen[get(t, addr)] = true
		return seen["all/0"]
	})
}

// TestDeniedCall: the exit reason of a worker names the system call that it may not make, and that
// of another program says that there was one; its walls are those of a worker.
func TestDeniedCall(t *testing.T) {
	t.Setenv(fileVar, t.TempDir())
	p := startTree(t, "denied")
	p.output.with(t, "program| file: ")
	if shown := p.Snapshot().String(); !strings.Contains(shown, "sandbox: no-new-privileges files(read=[/] write=[/dev/null]") {
		t.Errorf("the tree is\n%s", shown)
	}
	if err := os.WriteFile(filepath.Join(os.Getenv(fileVar), "seen"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "the end of the program in the log", func() bool {
		return strings.Contains(p.log.String(), ": a system call that a seccomp filter denies")
	})
	runtimetest.Eventually(t, "the name of the call in the log", func() bool {
		return strings.Contains(p.log.String(), "SIGSYS: bad system call: memfd_secret")
	})
}

func init() {
	for wall, s := range costs {
		trees["cost of "+wall] = func() coppice.Config {
			cfg := pool(1, func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listener(ctx, "http")
				if err != nil {
					return err
				}
				return w.Serve(ctx, ln, name(w))
			})
			web := cfg.Children[0].(coppice.Pool)
			web.Environment.Sandbox = s
			cfg.Children = []coppice.ChildSpec{coppice.ListenerSpec{Name: "http", Network: "tcp", Address: "127.0.0.1:0"}, web}
			return cfg
		}
	}
}

// costs are the walls whose cost is measured.
var costs = map[string]coppice.Sandbox{
	"none": {}, "NoFiles": {NoFiles: true, Execute: []string{"/"}}, "NoTCP": {NoTCP: true}, "Scoped": {Scoped: true}, "NoNetwork": {NoNetwork: true},
	"NoCapabilities": {NoCapabilities: true}, "service": {Syscalls: "service"}, "compute": {Syscalls: "compute"},
	"all": {NoFiles: true, Execute: []string{"/"}, NoTCP: true, Scoped: true, NoNetwork: true, NoCapabilities: true, Syscalls: "compute"},
}

// BenchmarkSandbox is one request, over a connection that is kept, to a worker within each wall.
// cpu-ns/op is the CPU time of the worker.
func BenchmarkSandbox(b *testing.B) {
	for _, name := range sorted(costs) {
		b.Run(name, func(b *testing.B) {
			b.Setenv(treeVar, "cost of "+name)
			cfg := withReports(trees["cost of "+name](), nil)
			cfg.Logger = slog.New(slog.DiscardHandler)
			rt, err := coppice.Start(b.Context(), cfg)
			if err != nil {
				b.Skip(err)
			}
			defer func() { _ = rt.Shutdown(context.Background()) }()
			var pid int
			rt.Snapshot().Walk(func(t coppice.Tree) {
				if t.Name == "web/0" {
					pid = t.PID
				}
			})
			cpu := func() (ns int64) {
				tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
				for _, task := range tasks {
					var ran int64
					if text, err := os.ReadFile(task); err == nil {
						_, _ = fmt.Sscan(string(text), &ran)
					}
					ns += ran
				}
				return ns
			}
			url, before := "http://"+rt.Listeners()[0].Addr.String(), cpu()
			for b.Loop() {
				resp, err := http.Get(url)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}
