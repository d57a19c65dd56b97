//go:build linux

package hosts_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// namespaces are two machines, a and b, with a cable between them.
type namespaces struct {
	t      *testing.T
	prefix string
}

func newNamespaces(t *testing.T) *namespaces {
	if os.Getuid() != 0 {
		t.Skip("network namespaces are root's")
	}
	n := &namespaces{t, fmt.Sprint("cpt", os.Getpid())}
	if out, err := exec.Command("ip", "netns", "add", n.prefix+"a").CombinedOutput(); err != nil {
		t.Skipf("no network namespaces here: %v %s", err, out)
	}
	t.Cleanup(func() { n.ip("netns", "del", n.prefix+"a") })
	n.ip("netns", "add", n.prefix+"b")
	t.Cleanup(func() { n.ip("netns", "del", n.prefix+"b") })
	n.ip("link", "add", "eth0", "netns", n.prefix+"a", "type", "veth", "peer", "name", "eth0", "netns", n.prefix+"b")
	for host, address := range map[string]string{"a": "10.77.0.1/24", "b": "10.77.0.2/24"} {
		n.ip("-n", n.prefix+host, "address", "add", address, "dev", "eth0")
		n.ip("-n", n.prefix+host, "link", "set", "lo", "up")
		n.ip("-n", n.prefix+host, "link", "set", "eth0", "up")
	}
	return n
}

func (n *namespaces) ip(args ...string) {
	n.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		n.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// cut has what a host sends be lost: it goes to a machine that is not there, and the cable stays
// up.
func (n *namespaces) cut(from ...string) {
	for _, host := range from {
		to := map[string]string{"a": "10.77.0.2", "b": "10.77.0.1"}[host]
		n.ip("-n", n.prefix+host, "neighbour", "replace", to, "lladdr", "02:00:00:00:00:99", "nud", "permanent", "dev", "eth0")
	}
}

func (n *namespaces) heal(from ...string) {
	for _, host := range from {
		n.ip("-n", n.prefix+host, "neighbour", "flush", "nud", "permanent", "dev", "eth0")
	}
}

// start starts a program on a host.
func (n *namespaces) start(host string, env []string) *runtimetest.Program {
	n.t.Helper()
	runtime.LockOSThread() // the program is of the namespace of the thread that starts it
	defer runtime.UnlockOSThread()
	enter := func(path string) (leave func()) {
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			n.t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			n.t.Fatal(err)
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			n.t.Fatal(err)
		}
		return func() {
			defer own.Close()
			if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
				panic(err) // the thread is of no use
			}
		}
	}
	defer enter("/run/netns/" + n.prefix + host)()
	return runtimetest.Start(n.t, append(env, hostVar+"="+host))
}

// TestNamespaces: two programs on two machines. A cut, of both ways or of one, and a gateway that
// is stopped make the other host unreachable, and its actors answer again afterwards; the ends of a
// gateway and of a worker are reported at once. COPPICE_SOAK=1 repeats it, and checks the times.
func TestNamespaces(t *testing.T) {
	n := newNamespaces(t)
	env := []string{netVar + "=10.77.0", certVar + "=" + certificates(t), "COPPICE_CONTROL=off"}
	a, b := n.start("a", env), n.start("b", env)
	const silence = 2 * time.Second // the default
	soak := os.Getenv("COPPICE_SOAK") == "1"
	faults := []struct {
		name       string
		begin, end func()
		want       string
		most       time.Duration
	}{
		{"a black hole", func() { n.cut("a", "b") }, func() { n.heal("a", "b") }, "unreachable", silence + 600*time.Millisecond},
		{"the end of a worker", func() { signal(t, b, "web/0", syscall.SIGKILL) }, func() {}, "killed", 100 * time.Millisecond},
		{"the end of a gateway", func() { signal(t, b, "gateway/0", syscall.SIGKILL) }, func() {}, "unreachable", 100 * time.Millisecond},
		{"the end of its own gateway", func() { signal(t, a, "gateway/0", syscall.SIGKILL) }, func() {}, "unreachable", 100 * time.Millisecond},
		{"a cut of one way", func() { n.cut("b") }, func() { n.heal("b") }, "unreachable", silence + 600*time.Millisecond},
		{"a gateway that is stopped", func() { signal(t, b, "gateway/0", syscall.SIGSTOP) }, func() { signal(t, b, "gateway/0", syscall.SIGCONT) }, "unreachable", silence + 600*time.Millisecond},
	}
	rounds := 1
	if soak {
		rounds = 10
	} else if testing.Short() {
		faults = faults[:1]
	} else {
		faults = faults[:5] // the last takes another silence
	}
	at := 1
	for range rounds {
		for _, f := range faults {
			a.Await(fmt.Sprintf(`answer %d of`, at))
			f.begin()
			begun := time.Now()
			end := a.Await(fmt.Sprintf(`end %d: (.*)$`, at))[1]
			took := time.Since(begun)
			t.Logf("%s: Down after %v: %s", f.name, took.Round(time.Millisecond), end)
			if !strings.Contains(end, f.want) {
				t.Errorf("%s: %s", f.name, end)
			}
			if soak && took > f.most {
				t.Errorf("%s: Down after %v, at most %v", f.name, took, f.most)
			}
			f.end()
			at++
		}
	}
	a.Await(fmt.Sprintf(`answer %d of`, at))
}
