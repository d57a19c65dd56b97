//go:build linux

package coppice_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// currentVar is the variable with the path of the link to the current release.
const currentVar = "COPPICE_TEST_CURRENT"

func init() {
	trees["release"] = func() coppice.Config {
		if os.Getenv("DAEMON") != "" && !coppice.IsChild() { // changes its state, as daemons do
			if err := os.Chdir("/"); err != nil {
				panic(err)
			}
			syscall.Umask(0o077)
			var l unix.Rlimit
			_ = unix.Getrlimit(unix.RLIMIT_STACK, &l)
			l.Cur /= 2
			if err := unix.Setrlimit(unix.RLIMIT_STACK, &l); err != nil {
				panic(err)
			}
		}
		return coppice.Config{
			Load: func(context.Context) ([]byte, error) {
				b, err := os.ReadFile(filepath.Join(os.Getenv(currentVar), "VERSION"))
				os.Setenv("LOADED", string(b))
				return b, err
			},
			Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) {
				os.Setenv("LOADED", "later")
				fmt.Println("up at", rt.Listeners()[0].Addr)
			}},
			Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: 1, Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
					b, err := os.ReadFile("VERSION")
					var l unix.Rlimit
					_ = unix.Getrlimit(unix.RLIMIT_STACK, &l)
					mask := syscall.Umask(0o777)
					syscall.Umask(mask)
					fmt.Fprintf(rw, "pid=%d directory=%s err=%v loaded=%s umask=%03o stack=%d", os.Getpid(), b, err, os.Getenv("LOADED"), mask, l.Cur)
				})})
			}}},
		}
	}
}

// TestReleaseOfLink: a program is deployed by a link to its release, and reloads into the program,
// the directory and the configuration of the release that the link leads to then, however it was
// started. A replacement stays in the directory of its generation, with the variables that Load had
// set, and in the state in which the program was started.
func TestReleaseOfLink(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(copied, program, 0o755); err != nil {
		t.Fatal(err)
	}
	var stack unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_STACK, &stack); err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct{ name, shell, script, env string }{
		{"by the link", "/bin/sh", `cd -P "$0"; unset PWD; umask 027; exec "$0/program"`, ""},
		{"by a relative path", "/bin/sh", `cd "$0"; umask 027; exec ./program`, ""},
		{"by a daemon", "/bin/sh", `cd "$0"; umask 027; exec ./program`, "DAEMON=1"},
		{"by a name that is made up", "/bin/bash", `cd -P "$0"; unset PWD; umask 027; exec -a myservice "$0/program"`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := os.Stat(tt.shell); err != nil {
				t.Skip(err)
			}
			if i > 0 && testing.Short() {
				t.Skip("the shell differs, the reload does not")
			}
			base := t.TempDir()
			current := filepath.Join(base, "current")
			release := func(n string) {
				t.Helper()
				dir := filepath.Join(base, "releases", n)
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, "VERSION"), []byte(n), 0o644); err != nil {
					t.Fatal(err)
				}
				if err := os.Link(copied, filepath.Join(dir, "program")); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(dir, current+".new"); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(current+".new", current); err != nil {
					t.Fatal(err)
				}
			}
			release("1")
			p := runtimetest.StartAt(t, tt.shell, []string{treeVar + "=release", currentVar + "=" + current, tt.env}, "-c", tt.script, current)
			addr := p.Await(`up at (.+)`)[1]
			is := func(when, n string) (pid int) {
				t.Helper()
				got := get(t, addr)
				want := fmt.Sprintf("directory=%s err=<nil> loaded=%s umask=027 stack=%d", n, n, stack.Cur)
				if _, err := fmt.Sscanf(got, "pid=%d", &pid); err != nil || !strings.HasSuffix(got, want) {
					t.Errorf("%s: %s, want %s", when, got, want)
				}
				return pid
			}
			killed := func(when, n string) {
				t.Helper()
				pid := is(when, n)
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				runtimetest.Eventually(t, "it has ended", func() bool { return !runtimetest.Alive(pid) })
				runtimetest.Eventually(t, "the worker is replaced", func() bool { return is(when+", killed", n) != pid })
			}
			killed("at the start", "1")
			release("2")
			killed("before the reload", "1")
			p.Signal(syscall.SIGHUP)
			p.Await("reloaded generation=2")
			if err := os.RemoveAll(filepath.Join(base, "releases", "1")); err != nil {
				t.Fatal(err)
			}
			killed("release 2, the old one is removed", "2")
			release("3")
			p.Signal(syscall.SIGHUP)
			p.Await("reloaded generation=3")
			killed("release 3", "3")
			p.Signal(syscall.SIGTERM)
			if code := p.Wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}
