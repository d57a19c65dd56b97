package process

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/runtime/internal/wall"
)

func init() {
	// dies starts a process, lets many of this program's threads end, and waits to be killed.
	programs["dies"] = func() {
		uid, err := strconv.Atoi(os.Getenv("USER_ID"))
		must(err)
		cmd := Command{Path: "/bin/sleep", Args: []string{"sleep", "60"}, DeathSignal: syscall.SIGKILL}
		if uid != 0 {
			cmd.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
		}
		p, err := Start(cmd)
		must(err)
		for range 20 { // threads that end with their goroutine
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				runtime.LockOSThread()
			}()
			<-ended
		}
		fmt.Println(p.PID(), status(p.PID(), "State") != "")
		time.Sleep(time.Hour)
	}
	// bare starts a program as another than itself would find it: what is wrong with
	// its own descriptors, mask and dispositions must not reach it.
	programs["bare"] = func() {
		for fd := range 40 { // dup(2)s are not close-on-exec
			if fd >= 20 {
				must(unix.Dup2(0, fd))
			}
		}
		var all unix.Sigset_t
		for i := range all.Val {
			all.Val[i] = ^all.Val[i]
		}
		launcher() <- func() { must(unix.PthreadSigmask(unix.SIG_SETMASK, &all, nil)) }
		file, err := os.Open("/proc/version")
		must(err)
		null, err := os.Open(os.DevNull)
		must(err)
		nice, err := strconv.Atoi(os.Getenv("NICE"))
		must(err)
		p, err := Start(Command{
			Path: "/bin/sleep", Args: []string{"sleep", "60"}, Nice: nice,
			Files: []*os.File{null, null, null, nil, file},
		})
		must(err)
		tick := time.NewTicker(time.Millisecond)
		list := descriptors(p.PID())
		// While it starts the loader opens libraries, and closes them again. What was handed down
		// stays.
		for until := time.Now().Add(patience / 2); len(list) > 4 && time.Now().Before(until); list = descriptors(p.PID()) {
			<-tick.C
		}
		fmt.Println(strings.Join(list, "\n"))
		fmt.Println("SigBlk", status(p.PID(), "SigBlk"), "SigIgn", status(p.PID(), "SigIgn"), "TracerPid", status(p.PID(), "TracerPid"))
		must(p.SignalGroup(syscall.SIGKILL))
		<-p.Done()
	}
}

// descriptors returns the descriptors of a process, each with its target.
func descriptors(pid int) (list []string) {
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	must(err)
	for _, fd := range fds {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
		if err != nil {
			to = err.Error() // it has been closed
		}
		list = append(list, fd.Name()+" "+to)
	}
	return list
}

// status reads one line of /proc/pid/status.
func status(pid int, key string) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(err)
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			return strings.Join(strings.Fields(v), " ")
		}
	}
	return ""
}

// TestBare: a process has exactly the descriptors that it was given, no signal is blocked or
// ignored, and no process traces it, although the program that started it had descriptors that are
// not close-on-exec, a full mask, and was itself started with signals ignored.
func TestBare(t *testing.T) {
	for _, nice := range []int{0, 1} { // started simply, and stopped in between
		t.Run(fmt.Sprintf("nice %d", nice), func(t *testing.T) {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			c, err := begin(t, Command{
				Path: "/bin/sh", Args: []string{"sh", "-c", `trap "" HUP INT QUIT USR1 CHLD PIPE TERM; exec "$0"`, self},
				Env: []string{programVar + "=bare", fmt.Sprintf("NICE=%d", nice)},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.end)
			want := []string{
				"0 /dev/null", "1 /dev/null", "2 /dev/null", "4 /proc/version",
				"SigBlk 0000000000000000 SigIgn 0000000000000000 TracerPid 0",
			}
			for _, w := range want {
				if l := c.line(); l != w {
					t.Errorf("%q, want %q", l, w)
				}
			}
			if e := c.wait(); e.Code != 0 {
				t.Errorf("ended with %+v", e)
			}
		})
	}
}

// TestRlimitNames: each name means something here.
func TestRlimitNames(t *testing.T) {
	if names := slices.Sorted(maps.Keys(rlimits)); !slices.Equal(names, RlimitNames) {
		t.Errorf("%v, want %v", names, RlimitNames)
	}
}

// TestSettled: limits and nice are in effect before the program's first instruction.
func TestSettled(t *testing.T) {
	c, err := begin(t, Command{
		Path: "/bin/sh", Args: []string{"sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c; nice"},
		Nice:    3,
		Rlimits: []Rlimit{{"nofile", 33, 44}, {"core", 0, 1<<64 - 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.end)
	for _, want := range []string{"33", "44", "0", "3"} {
		if l := c.line(); l != want {
			t.Errorf("%s, want %s", l, want)
		}
	}
	if e := c.wait(); e.Code != 0 || e.Signal != 0 {
		t.Errorf("ended with %+v", e)
	}
}

// withoutCapabilities takes CAP_SYS_RESOURCE, CAP_SYS_NICE and CAP_SYS_PTRACE from the thread that
// starts processes, as a container does from its root, until the end of the test.
func withoutCapabilities(t *testing.T) {
	t.Helper()
	set := func(change func(*[2]unix.CapUserData)) {
		done := make(chan error)
		launcher() <- func() {
			head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var data [2]unix.CapUserData
			err := unix.Capget(&head, &data[0])
			change(&data)
			done <- errors.Join(err, unix.Capset(&head, &data[0]))
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	var was uint32
	set(func(data *[2]unix.CapUserData) {
		was = data[0].Effective
		data[0].Effective &^= 1<<unix.CAP_SYS_RESOURCE | 1<<unix.CAP_SYS_NICE | 1<<unix.CAP_SYS_PTRACE
	})
	t.Cleanup(func() { set(func(data *[2]unix.CapUserData) { data[0].Effective = was }) })
}

// TestSettledOfOther: the limits and the priority of a process of another user are lowered, also by
// a root without capabilities for others, as in most containers; that cannot raise them.
func TestSettledOfOther(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process of another user")
	}
	withoutCapabilities(t)
	cmd := Command{
		Path: "/bin/sh", Args: []string{"sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c; nice"}, Nice: 19,
		Rlimits:    []Rlimit{{"nofile", 33, 44}, {"core", 0, 0}},
		Credential: &syscall.Credential{Uid: 65534, Gid: 65533, Groups: []uint32{7}},
	}
	c, err := begin(t, cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.end)
	for _, want := range []string{"33", "44", "0", "19"} {
		if l := c.line(); l != want {
			t.Errorf("%s, want %s", l, want)
		}
	}
	if e := c.wait(); e.Code != 0 || e.Signal != 0 {
		t.Errorf("ended with %+v", e)
	}
	var hard unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &hard); err != nil {
		t.Fatal(err)
	}
	cmd.Rlimits = []Rlimit{{"nofile", 33, hard.Max + 1}}
	if _, err := begin(t, cmd); !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), "CAP_SYS_RESOURCE") {
		t.Errorf("a limit is raised: %v", err)
	}
	cmd.Rlimits, cmd.Nice = nil, -3
	if _, err := begin(t, cmd); errno(err) != syscall.EPERM && errno(err) != syscall.EACCES || !strings.Contains(err.Error(), "CAP_SYS_NICE") {
		t.Errorf("a priority is raised: %v", err)
	}
	if err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("a child is left: %v", err)
	}
}

// TestCredential: a process of another user, from an executable held by number
// that this user could not find by its path.
func TestCredential(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process of another user")
	}
	dir := filepath.Join(t.TempDir(), "private")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/sleep", b, 0o755); err != nil {
		t.Fatal(err)
	}
	exe, err := OpenExecutable(dir + "/sleep")
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	c, err := begin(t, Command{
		Executable: exe, Args: []string{"sleep", "60"}, DeathSignal: syscall.SIGKILL, Nice: -2,
		Credential: &syscall.Credential{Uid: 65534, Gid: 65533, Groups: []uint32{7, 8}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.end)
	for key, want := range map[string]string{
		"Uid": "65534 65534 65534 65534", "Gid": "65533 65533 65533 65533", "Groups": "7 8", "CapEff": "0000000000000000",
	} {
		if got := status(c.PID(), key); got != want {
			t.Errorf("%s %s, want %s", key, got, want)
		}
	}
}

// TestOpenExecutableOfNone: the error for a path that is no regular file comes at once: a pipe in
// place of a program does not delay a reload until a process writes to it.
func TestOpenExecutableOfNone(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, t.TempDir(), os.DevNull} {
		if _, err := OpenExecutable(path); !errors.Is(err, syscall.EACCES) || !strings.Contains(err.Error(), path+": no regular file") {
			t.Errorf("%s: error %v", path, err)
		}
	}
}

// TestExecutableIsNotMet: whatever numbers the descriptors of a process have, the
// executable's own is not overwritten before it is needed.
func TestExecutableIsNotMet(t *testing.T) {
	exe, err := OpenExecutable("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	for above := range 8 {
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD_CLOEXEC, 7+above)
		if err != nil {
			t.Fatal(err)
		}
		high := os.NewFile(uintptr(fd), "high")
		files := []*os.File{null, null, null, high, null, null, null}
		p, err := Start(Command{Executable: exe, Args: []string{"true"}, Files: files})
		if err != nil {
			t.Fatalf("highest descriptor %d: %v", fd, err)
		}
		<-p.Done()
		if e := p.Exit(); e.Code != 0 || e.Signal != 0 {
			t.Errorf("highest descriptor %d: %+v", fd, e)
		}
		p.Close()
		high.Close()
		null.Close()
	}
}

// TestDeathSignal: only the program's death ends its children, also children of another user (P10).
func TestDeathSignal(t *testing.T) {
	for _, uid := range []int{0, 65534} {
		t.Run(fmt.Sprintf("user %d", uid), func(t *testing.T) {
			if uid != 0 && os.Geteuid() != 0 {
				t.Skip("only root can start a process of another user")
			}
			c := run(t, "dies", Command{Env: []string{fmt.Sprintf("USER_ID=%d", uid)}})
			pid, alive, _ := strings.Cut(c.line(), " ")
			if alive != "true" {
				t.Error("it died while its parent lived")
			}
			if err := c.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			c.wait()
			eventually(t, "the child has died", func() bool {
				b, err := os.ReadFile("/proc/" + pid + "/stat")
				return err != nil || strings.Contains(string(b), ") Z ")
			})
		})
	}
}

// eventually polls cond until it is true.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); !cond(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// TestGroupOutlivesLeader: GroupAlive reports the processes that a leader leaves behind, and they
// get the group's signals after the leader is reaped.
func TestGroupOutlivesLeader(t *testing.T) {
	if !groupsByPidfd() {
		t.Skip("needs Linux 6.9: PIDFD_SIGNAL_PROCESS_GROUP")
	}
	c := run(t, "leaves", Command{Env: []string{"LEAVES=deaf"}})
	var left int
	for range 2 { // in either order
		if l := c.line(); l != "deaf" {
			left, _ = strconv.Atoi(l)
		}
	}
	if e := c.wait(); e.Code != 0 || e.Signal != 0 {
		t.Fatalf("ended with %+v", e)
	}
	if !c.GroupAlive() {
		t.Fatal("the group is taken for dead")
	}
	if err := c.SignalGroup(syscall.SIGTERM); err != nil || status(left, "State") == "" {
		t.Fatalf("SIGTERM to a process that ignores it: %v", err)
	}
	if err := c.SignalGroup(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the group has ended", func() bool { return !c.GroupAlive() })
	if err := c.SignalGroup(syscall.SIGKILL); err != nil {
		t.Errorf("a signal to a group that has ended: %v", err)
	}
	if err := c.Signal(syscall.SIGKILL); err != nil {
		t.Errorf("a signal to a process that has ended: %v", err)
	}
}

// TestGroupWithoutPidfd: before Linux 6.9 the rest of a group is killed before its leader is
// reaped, because another group may have the number after that.
func TestGroupWithoutPidfd(t *testing.T) {
	had := groupsByPidfd
	groupsByPidfd = func() bool { return false }
	t.Cleanup(func() { groupsByPidfd = had })
	c := run(t, "leaves", Command{Env: []string{"LEAVES=deaf"}})
	var left int
	for l := range c.lines { // to the end of the output: no process has the pipe any more
		if l != "deaf" {
			left, _ = strconv.Atoi(l)
		}
	}
	if left == 0 {
		t.Fatal("no number printed")
	}
	c.wait()
	eventually(t, "the group has ended", func() bool { return !groupHasLiving(c.PID()) })
	if c.GroupAlive() {
		t.Error("the group is taken for alive")
	}
	if err := c.SignalGroup(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

// counts are what 1,000 processes must leave as they were.
func counts(t *testing.T) map[string]int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	children := 0
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		b, _ := os.ReadFile(task) // a thread may have ended
		children += len(strings.Fields(string(b)))
	}
	return map[string]int{"descriptors": len(fds), "goroutines": runtime.NumGoroutine(), "children": children}
}

// TestThousand: after 1,000 starts and kills, half of them by group with a child
// left behind, there are no more descriptors, children, goroutines and process groups
// than at the start. With -short it is 100.
func TestThousand(t *testing.T) {
	n := 1000
	if testing.Short() {
		n = 100
	}
	startAndKill(t, 10) // what is made once: the launcher, the poller
	before := counts(t) // something of an earlier test may be about to end, so there may be fewer later
	pgids := startAndKill(t, n)
	var after map[string]int
	defer func() { t.Logf("%v, and after %d: %v", before, n, after) }()
	eventually(t, "no more than at the start", func() bool {
		after = counts(t)
		for what, n := range after {
			if n > before[what] {
				return false
			}
		}
		return true
	})
	eventually(t, "no group lives", func() bool { return !slices.ContainsFunc(pgids[n-100:], groupHasLiving) })
}

// startAndKill does it n times, one after the other, and returns the groups.
func startAndKill(t *testing.T, n int) (pgids []int) {
	t.Helper()
	for i := range n {
		script := "exec sleep 60"
		if i%2 == 0 {
			script = "sleep 60 & exec sleep 60"
		}
		c, err := begin(t, Command{Path: "/bin/sh", Args: []string{"sh", "-c", script}})
		if err != nil {
			t.Fatal(err)
		}
		pgids = append(pgids, c.PID())
		c.end()
		if e := c.Exit(); e.Signal != syscall.SIGKILL {
			t.Fatalf("ended with %+v", e)
		}
	}
	return pgids
}

// TestListenPID: LISTEN_PID is the number of the process itself, whatever the variables said, and
// nothing else changes; also within walls, and of a process of another user, by a root without
// CAP_SYS_PTRACE.
func TestListenPID(t *testing.T) {
	cmd := Command{
		Path: "/bin/sh", Args: []string{"sh", "-c", `echo "$LISTEN_PID $A $B"; echo $$; env | grep -c LISTEN_PID`, "an argument"},
		Env: []string{"A=1", "LISTEN_PID=1", "B=2", "PATH=" + os.Getenv("PATH")}, ListenPID: true,
	}
	check := func(cmd Command) {
		t.Helper()
		c, err := begin(t, cmd)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.end)
		for _, want := range []string{fmt.Sprint(c.PID(), " 1 2"), fmt.Sprint(c.PID()), "1"} {
			if l := c.line(); l != want {
				t.Errorf("%q, want %q", l, want)
			}
		}
		if e := c.wait(); e.Code != 0 || e.Signal != 0 {
			t.Errorf("ended with %+v", e)
		}
	}
	check(cmd)
	w, err := wall.Rules{NoNewPrivileges: true}.Build()
	if err != nil {
		t.Fatal(err)
	}
	walled := cmd
	walled.Wall = w
	check(walled)
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process of another user")
	}
	withoutCapabilities(t)
	cmd.Credential = &syscall.Credential{Uid: 65534, Gid: 65533}
	check(cmd)
}
