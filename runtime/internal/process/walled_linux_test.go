package process

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/runtime/internal/seccomptest"
	"github.com/coppice-go/coppice/runtime/internal/wall"
)

func init() {
	if os.Getenv(programVar) == "state" {
		runtime.LockOSThread() // the main thread has the death signal, and the state that is shown
	}
	// state prints what this process was started with.
	programs["state"] = func() {
		status, err := os.ReadFile("/proc/self/status")
		must(err)
		limits, err := os.ReadFile("/proc/self/limits")
		must(err)
		dir, err := os.Getwd()
		must(err)
		nice, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		must(err)
		var death int32
		must(unix.Prctl(unix.PR_GET_PDEATHSIG, uintptr(unsafe.Pointer(&death)), 0, 0, 0))
		group, err := unix.Getpgid(0)
		must(err)
		fmt.Printf("%q\n", fmt.Sprint(string(status), string(limits), dir, nice, death, group == os.Getpid()))
	}
	// halfWalled starts a program within walls of which one is refused, and without that wall.
	programs["halfWalled"] = func() {
		spec := wall.Rules{NoFiles: true, NoNetwork: true, NoCapabilities: true, Syscalls: "compute", Execute: []string{"/"}}
		calls := map[string]seccomptest.Call{
			"landlock_create_ruleset": {Number: unix.SYS_LANDLOCK_CREATE_RULESET},
			"landlock_restrict_self":  {Number: unix.SYS_LANDLOCK_RESTRICT_SELF},
			"seccomp":                 {Number: unix.SYS_SECCOMP},
			"unshare":                 {Number: unix.SYS_UNSHARE},
			"capset":                  {Number: unix.SYS_CAPSET},
		}
		seccomptest.Refuse(unix.EPERM, calls[os.Getenv("CALL")])
		for _, spec.BestEffort = range []bool{false, true} {
			w, err := spec.Build()
			if err == nil {
				var p *Process
				if p, err = Start(Command{Path: "/bin/true", Args: []string{"/bin/true"}, Wall: w}); err == nil {
					<-p.Done()
					err = fmt.Errorf("%+v lacks %q", p.Exit().Code, p.Lacks())
				}
			}
			fmt.Println(err)
			_, err = unix.Wait4(-1, nil, unix.WNOHANG, nil)
			fmt.Println(err)
		}
	}
}

// TestWalledStart: a process within walls has, apart from them, what it has without.
func TestWalledStart(t *testing.T) {
	cmd := func(w *wall.Wall) Command {
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { null.Close() })
		c := Command{Wall: w, Dir: "/", DeathSignal: syscall.SIGTERM, Nice: 3, Files: []*os.File{nil, null, nil, null}, Rlimits: []Rlimit{{"core", 0, 0}, {"nproc", 5000, 5000}, {"nofile", 300, 400}}}
		if os.Geteuid() == 0 {
			c.Credential = &syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{7, 8}}
		}
		return c
	}
	w, err := wall.Rules{NoNewPrivileges: true, Syscalls: "compute", Read: []string{"/"}, Execute: []string{"/"}, Scoped: true, NoCapabilities: true}.Build()
	if err != nil {
		t.Skip(err)
	}
	defer w.Close()
	differs := regexp.MustCompile(`(?m)^"?(Name|Pid|Tgid|Ngid|NSpid|NStgid|NSpgid|NSsid|Vm\w+|Rss\w+|Threads|SigQ|\w*ctxt_switches|HugetlbPages|Cpus_\w+|Speculation\w+|SigPnd|ShdPnd|x86_\w+):.*\n`)
	state := func(w *wall.Wall) string {
		return differs.ReplaceAllString(strings.ReplaceAll(strings.ReplaceAll(run(t, "state", cmd(w)).line(), `\n`, "\n"), `\t`, "\t"), "")
	}
	without, within := state(nil), state(w)
	for _, l := range [][2]string{{"NoNewPrivs:\t1", "NoNewPrivs:\t0"}, {"Seccomp:\t2", "Seccomp:\t0"}, {"Seccomp_filters:\t1", "Seccomp_filters:\t0"}} {
		if !strings.Contains(within, l[0]) {
			t.Errorf("within walls it has not %q", l[0])
		}
		within = strings.Replace(within, l[0], l[1], 1)
	}
	bounding := regexp.MustCompile(`CapBnd:\t[0-9a-f]+`)
	if got := bounding.FindString(within); os.Geteuid() == 0 && got != "CapBnd:\t0000000000000000" {
		t.Errorf("its bounding set is %q", got)
	}
	within, without = bounding.ReplaceAllString(within, ""), bounding.ReplaceAllString(without, "")
	if within != without {
		t.Errorf("within walls\n%s\nwithout\n%s", within, without)
	}
}

// TestHalfWalled: if a wall cannot be raised, nothing is started, and the error names the field; by
// choice all other walls are raised, and it is said which is not.
func TestHalfWalled(t *testing.T) {
	for call, field := range map[string]string{
		"landlock_create_ruleset": "NoFiles", "landlock_restrict_self": "NoFiles", "seccomp": "Syscalls", "unshare": "NoNetwork", "capset": "Capabilities",
	} {
		t.Run(call, func(t *testing.T) {
			c := run(t, "halfWalled", Command{Env: []string{"CALL=" + call}})
			said := [4]string{c.line(), c.line(), c.line(), c.line()}
			if !strings.Contains(said[0], field+": ") || !strings.Contains(said[0], "operation not permitted") {
				t.Errorf("error %q, want %s in it", said[0], field)
			}
			if !strings.HasPrefix(said[2], "0 lacks [\"") || strings.Count(said[2], `"`) != 2 || !strings.Contains(said[2], field) {
				t.Errorf("with best effort %q", said[2])
			}
			if said[1] != "no child processes" || said[3] != "no child processes" {
				t.Errorf("a child is left: %q", said)
			}
		})
	}
}
