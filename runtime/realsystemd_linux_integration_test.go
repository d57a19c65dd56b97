//go:build linux

package coppice_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

var systemdKills = flag.Int("systemd-kills", 5, "how often TestRealSystemd kills the whole service")

// systemdVar says where TestRealSystemd runs: elsewhere, if it is "apart".
const systemdVar = "COPPICE_SYSTEMD"

const realUnit = "hello.service"

func init() {
	trees["a real service of systemd's"] = func() coppice.Config {
		return coppice.Config{Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "http", Network: "tcp", Address: os.Getenv("COPPICE_TEST_ADDRESS")},
			coppice.Pool{Name: "web", Size: 2, Environment: coppice.Environment{Resources: coppice.Resources{Accounting: true}}, Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listener(ctx, "http")
				if err != nil {
					return err
				}
				go func() {
					for {
						c, err := ln.Accept()
						if err != nil {
							return
						}
						_, _ = fmt.Fprintf(c, "%d %d", os.Getppid(), w.Generation())
						_ = c.Close()
					}
				}()
				if err := w.Ready(); err != nil {
					return err
				}
				<-ctx.Done()
				return nil
			}},
		}}
	}
}

// bootSystemd starts a systemd as process 1 of namespaces of its own, in a cgroup of its own, with
// the units in a directory. It returns a function that runs a program there.
func bootSystemd(t *testing.T, units string) (run func(name string, args ...string) (string, error)) {
	t.Helper()
	missing := func(format string, args ...any) { t.Skipf("no systemd: "+format, args...) }
	if os.Geteuid() != 0 {
		missing("the user is not root")
	}
	const systemd = "/usr/lib/systemd/systemd"
	for _, program := range []string{systemd, "systemctl", "unshare", "nsenter", "mount", "umount"} {
		if _, err := exec.LookPath(program); err != nil {
			missing("%v", err)
		}
	}
	groups := t.TempDir()
	if err := syscall.Mount("cgroup2", groups, "cgroup2", 0, ""); err != nil {
		missing("cgroup2 cannot be mounted: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(groups, syscall.MNT_DETACH) })
	group := filepath.Join(groups, fmt.Sprint("coppice-test-", os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		missing("%v", err)
	}
	t.Cleanup(func() { removeGroup(t, group) })
	boot := filepath.Join(t.TempDir(), "boot")
	script := `set -e
mount --make-rprivate /
umount -R /sys/fs/cgroup 2>/dev/null || umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/systemd/journal
mount --bind ` + units + ` /etc/systemd/system
exec env -i container=coppice-test PATH="$PATH" ` + systemd + ` --system --unit=test.target --log-target=console --log-level=notice --show-status=no`
	if err := os.WriteFile(boot, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	said := &printed{to: testWriter{t}}
	cmd := exec.Command("sh", "-c", "echo $$ > "+group+"/cgroup.procs && exec unshare --pid --fork --mount --cgroup --ipc --uts --kill-child sh "+boot)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the process
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if err := <-ended; err != nil {
			t.Log("the process that was killed:", err)
		}
	})
	var first []string // arguments of nsenter for process 1 there
	run = func(name string, args ...string) (string, error) {
		if first == nil {
			kids := runtimetest.Children(t, cmd.Process.Pid)
			if len(kids) == 0 {
				return "", errors.New("systemd does not run")
			}
			first = []string{"-t", strconv.Itoa(kids[0]), "-m", "-p", "-C", "-i", "-u", "--"}
		}
		out, err := exec.Command("nsenter", slices.Concat(first, []string{name}, args)...).CombinedOutput()
		return string(bytes.TrimSpace(out)), err
	}
	up := false
	runtimetest.Eventually(t, "systemd to be up", func() bool {
		select {
		case err := <-ended:
			ended <- err
			return true
		default:
		}
		_, err := run("systemctl", "is-active", "test.target")
		up = err == nil
		return up
	})
	if !up {
		missing("it does not start: %s", strings.TrimSpace(said.String()))
	}
	return run
}

// serviceWithStore returns the unit with a descriptor store from docs/systemd.md.
func serviceWithStore(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../docs/systemd.md")
	if err != nil {
		t.Fatal(err)
	}
	for text := range strings.SplitSeq(string(b), "    # /etc/systemd/system/"+realUnit+"\n") {
		var unit strings.Builder
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "    ") && line != "\n" {
				break
			}
			unit.WriteString(strings.TrimPrefix(line, "    "))
		}
		if strings.Contains(unit.String(), "FileDescriptorStoreMax=") {
			return unit.String()
		}
	}
	t.Fatal("docs/systemd.md has no unit with FileDescriptorStoreMax=")
	return ""
}

// clients connect all the time, and count what comes of it.
type clients struct {
	mu     sync.Mutex
	served int
	failed map[string]int
	last   string // the newest answer
}

func startClients(t *testing.T, address string) *clients {
	c := &clients{failed: map[string]int{}}
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() { // ends with stop
			for ctx.Err() == nil {
				answer, err := answerOfMaster(address)
				c.mu.Lock()
				if err == nil {
					c.served, c.last = c.served+1, answer
				} else {
					c.failed[err.Error()]++
				}
				c.mu.Unlock()
			}
		})
	}
	t.Cleanup(func() { stop(); all.Wait() })
	return c
}

// answerOfMaster connects and reads the answer. Its errors say what happened, and not to which
// connection.
func answerOfMaster(address string) (string, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return "", cause(err)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(runtimetest.Patience))
	b, err := io.ReadAll(conn)
	if err == nil && len(b) == 0 {
		err = io.EOF
	}
	return string(b), cause(err)
}

func cause(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}

// count returns the counts so far, and sets them to zero.
func (c *clients) count() (served, refused int, others map[string]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	served, others = c.served, maps.Clone(c.failed)
	refused = others[syscall.ECONNREFUSED.Error()]
	delete(others, syscall.ECONNREFUSED.Error())
	c.served, c.failed = 0, map[string]int{}
	return served, refused, others
}

// await waits until the newest answer is of another master, or another generation, than before.
func (c *clients) await(t *testing.T, what string, ok func(master, generation string) bool) {
	t.Helper()
	runtimetest.Eventually(t, what, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		master, generation, _ := strings.Cut(c.last, " ")
		return master != "" && ok(master, generation)
	})
}

// TestRealSystemd runs the unit of docs/systemd.md under a real systemd, with clients that connect
// all the time. A kill of the whole cgroup refuses none, nor does a restart, nor a reload or an
// upgrade, which leave the main process; a stop empties the store, and refuses. With Delegate=yes
// each worker has a cgroup below that of the service, and these are all that there is.
func TestRealSystemd(t *testing.T) {
	if os.Getenv(systemdVar) == "apart" {
		t.Skip("it runs apart")
	}
	if testing.Short() {
		t.Skip("slow, and the race detector has nothing to see in it")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", freePorts(t))
	units := t.TempDir()
	dropIn := filepath.Join(units, realUnit+".d")
	if err := os.Mkdir(dropIn, 0o755); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(units, "log")
	for path, text := range map[string]string{
		filepath.Join(units, "test.target"): "[Unit]\nDefaultDependencies=no\n",
		filepath.Join(units, realUnit):      strings.ReplaceAll(serviceWithStore(t), "/usr/local/bin/hello", self),
		filepath.Join(dropIn, "test.conf"): "[Unit]\nDefaultDependencies=no\n[Service]\nDelegate=yes\nEnvironment=COPPICE_TEST_PROGRAM=1 COPPICE_TEST_ADDRESS=" + address +
			" \"" + treeVar + "=a real service of systemd's\"\nStandardOutput=append:" + log + "\nStandardError=append:" + log + "\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if b, err := os.ReadFile(log); err == nil && t.Failed() {
			t.Logf("%s", b)
		}
	})
	run := bootSystemd(t, units)
	systemctl := func(args ...string) string {
		t.Helper()
		out, err := run("systemctl", args...)
		if err != nil {
			t.Fatalf("systemctl %q: %v: %s", args, err, out)
		}
		return out
	}
	property := func(name string) string { t.Helper(); return systemctl("show", "--value", "-p", name, realUnit) }

	systemctl("start", realUnit)
	c := startClients(t, address)
	master := property("MainPID")
	c.await(t, "the first answer", func(m, _ string) bool { return m == master })
	if n := property("NFileDescriptorStore"); n != "1" {
		t.Errorf("%s sockets in the store", n)
	}
	settled := func(what string, begin time.Time) {
		t.Helper()
		served, refused, others := c.count()
		t.Logf("%s: %d served, %d refused, others %v, in %v", what, served, refused, others, time.Since(begin).Round(time.Millisecond))
		if refused != 0 || served == 0 {
			t.Errorf("%s: clients were refused", what)
		}
	}
	former := map[string]bool{"1": true} // the parent of a worker that outlives its master by a moment
	nextStart := func() {                // the newest answer may be a late one, of any former start
		t.Helper()
		former[master] = true
		c.await(t, "an answer of the next start", func(m, _ string) bool { master = m; return !former[m] })
	}
	c.count()
	begin := time.Now()
	for range *systemdKills {
		systemctl("kill", "-s", "KILL", "--kill-who=all", realUnit)
		nextStart()
	}
	settled(fmt.Sprint(*systemdKills, " kills of everything"), begin)
	if n := property("NRestarts"); n != strconv.Itoa(*systemdKills) {
		t.Errorf("%s restarts", n)
	}

	begin = time.Now()
	systemctl("restart", realUnit)
	nextStart()
	settled("a restart", begin)
	if n, pid := property("NFileDescriptorStore"), property("MainPID"); n != "1" || pid != master {
		t.Errorf("%s sockets in the store, main process %s, that of the workers is %s", n, pid, master)
	}

	begin = time.Now()
	systemctl("reload", realUnit)
	c.await(t, "an answer of the next generation", func(_, generation string) bool { return generation == "2" })
	settled("a reload", begin)
	if pid := property("MainPID"); pid != master {
		t.Errorf("main process %s after a reload, %s before", pid, master)
	}

	upgrade := "[Service]\nExecReload=\nExecReload=/bin/kill -USR2 $MAINPID\n" // as docs/systemd.md has it
	if err := os.WriteFile(filepath.Join(dropIn, "upgrade.conf"), []byte(upgrade), 0o644); err != nil {
		t.Fatal(err)
	}
	systemctl("daemon-reload")
	for i := range 2 {
		begin = time.Now()
		systemctl("reload", realUnit)
		c.await(t, "an answer of the next program", func(_, generation string) bool { return generation == strconv.Itoa(3+i) })
		settled("an upgrade", begin)
		if n, pid := property("NFileDescriptorStore"), property("MainPID"); n != "1" || pid != master {
			t.Errorf("%s sockets in the store, main process %s after an upgrade, %s before", n, pid, master)
		}
	}

	runtimetest.Eventually(t, "a cgroup for each worker", func() bool { // the former ones may drain
		out, err := run("find", "/sys/fs/cgroup/"+property("ControlGroup"), "-name", "web-*#*")
		groups := strings.Fields(out)
		return err == nil && len(groups) == 2 && !slices.ContainsFunc(groups, func(g string) bool {
			return !strings.Contains(g, realUnit+"/coppice-"+master+"/web-")
		})
	})

	systemctl("stop", realUnit)
	if n, state := property("NFileDescriptorStore"), property("ActiveState"); n != "0" || state != "inactive" {
		t.Errorf("after a stop: %s, %s sockets in the store", state, n)
	}
	if conn, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after a stop: %v", err)
		if err == nil {
			conn.Close()
		}
	}
}
