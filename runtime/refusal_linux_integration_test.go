//go:build linux

package coppice_test

import (
	"context"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/internal/seccomptest"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// refuseVar names the call that the tree "refused" has refused to its master, and
// errnoVar the errno.
const (
	refuseVar = "COPPICE_TEST_REFUSE"
	errnoVar  = "COPPICE_TEST_ERRNO"
)

var refusedCalls = map[string][]seccomptest.Call{
	"memfd_create": {{Number: unix.SYS_MEMFD_CREATE}},
	"memfd_noexec": {{Number: unix.SYS_MEMFD_CREATE, Arg: 1, Bits: unix.MFD_NOEXEC_SEAL, None: true}}, // vm.memfd_noexec=2
	"old kernel":   {{Number: unix.SYS_MEMFD_CREATE, Arg: 1, Bits: unix.MFD_NOEXEC_SEAL}},             // before 6.3
	"socketpair":   {{Number: unix.SYS_SOCKETPAIR}},
	"ipv6":         {{Number: unix.SYS_SOCKET, Bits: unix.AF_INET6 &^ unix.AF_INET}}, // no other family has that bit here
}

func init() {
	trees["refused"] = func() coppice.Config {
		if call := refusedCalls[os.Getenv(refuseVar)]; call != nil && !coppice.IsChild() {
			e, _ := strconv.Atoi(os.Getenv(errnoVar))
			seccomptest.Refuse(syscall.Errno(e), call...)
		}
		few, _ := strconv.ParseUint(os.Getenv("FEW"), 10, 64)
		if few > 0 && !coppice.IsChild() {
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: few, Max: few}); err != nil {
				panic(err)
			}
		}
		cfg := pool(1, func(ctx context.Context, w *coppice.Worker) error {
			for _, network := range []string{"tcp", "tcp4"} {
				if _, err := w.Listen(network, ":0"); err != nil {
					return err
				}
			}
			if _, err := w.ListenPacket("udp", ":0"); err != nil {
				return err
			}
			if err := w.Ready(); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
		cfg.Load = func(context.Context) ([]byte, error) { return make([]byte, 100_000), nil } // more than fits a frame
		cfg.Hooks.Started = func(*coppice.Runtime) { os.Stderr.WriteString("started\n") }
		return cfg
	}
}

// TestRefusedMemory: where a file in memory is to be made so that it cannot be run
// (vm.memfd_noexec), or the kernel does not know that yet, the tree starts.
func TestRefusedMemory(t *testing.T) {
	for call, e := range map[string]syscall.Errno{"memfd_noexec": syscall.EACCES, "old kernel": syscall.EINVAL} {
		t.Run(call, func(t *testing.T) {
			p := runtimetest.Start(t, []string{treeVar + "=refused", refuseVar + "=" + call, errnoVar + "=" + strconv.Itoa(int(e))})
			p.Await("^started$")
			p.Signal(syscall.SIGTERM)
			if code := p.Wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// TestRefusedIPv6: where a socket of IPv6 is refused, by whatever errno, what would have been dual
// stack is IPv4, as with net.Listen.
func TestRefusedIPv6(t *testing.T) {
	for _, e := range []syscall.Errno{syscall.EPERM, syscall.EACCES, syscall.EINVAL, syscall.EAFNOSUPPORT} {
		p := runtimetest.Start(t, []string{treeVar + "=refused", refuseVar + "=ipv6", errnoVar + "=" + strconv.Itoa(int(e))})
		p.Await("^started$")
		p.Signal(syscall.SIGTERM)
		if code := p.Wait(); code != 0 {
			t.Errorf("%v: exit code %d", e, code)
		}
	}
}

// TestRefusedAtStart: if the system refuses something that a tree needs, the program's last line
// names it and the remedy, and the exit code is 1.
func TestRefusedAtStart(t *testing.T) {
	for call, says := range map[string]string{
		"memfd_create": "a seccomp profile must allow it",
		"socketpair":   "(RestrictAddressFamilies= of systemd, a seccomp profile) must allow AF_UNIX",
	} {
		for _, e := range []syscall.Errno{syscall.EPERM, syscall.ENOSYS, syscall.EINVAL, syscall.EACCES, syscall.EAFNOSUPPORT} {
			t.Run(call+"/"+unix.ErrnoName(e), func(t *testing.T) {
				p := runtimetest.Start(t, []string{treeVar + "=refused", refuseVar + "=" + call, errnoVar + "=" + strconv.Itoa(int(e))})
				if code := p.Wait(); code != 1 {
					t.Errorf("exit code %d", code)
				}
				lines := p.Lines()
				if last := lines[len(lines)-1]; !strings.Contains(last, call+": "+e.Error()+": ") || !strings.Contains(last, says) {
					t.Errorf("it says %q", last)
				}
			})
		}
	}
}

// TestFewDescriptors: a tree that may have as many descriptors as it needs runs. A tree that may
// not ends at once with exit code 2, and its error has the limit and the least number.
func TestFewDescriptors(t *testing.T) {
	for few, starts := range map[string]bool{"40": true, "16": false} {
		t.Run(few, func(t *testing.T) {
			p := runtimetest.Start(t, []string{treeVar + "=refused", "FEW=" + few})
			want := 2
			if starts {
				want = 0
				p.Await("^started$")
				p.Signal(syscall.SIGTERM)
			}
			if code := p.Wait(); code != want {
				t.Errorf("exit code %d, want %d", code, want)
			}
			says := "RLIMIT_NOFILE " + few + ": the master of this tree takes 27 descriptors at the least"
			if said := strings.Join(p.Lines(), "\n"); strings.Contains(said, says) == starts {
				t.Errorf("it says %q", said)
			}
		})
	}
}
