//go:build linux

package coppice_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func init() {
	trees["signals before it is up"] = func() coppice.Config {
		cfg := pool(1, func(ctx context.Context, w *coppice.Worker) error {
			if err := w.Ready(); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
		cfg.Hooks.Started = func(*coppice.Runtime) { // up is the tree when this has returned
			seen := make(chan os.Signal, 2)
			signal.Notify(seen, syscall.SIGHUP, syscall.SIGTTIN)
			for _, sig := range []syscall.Signal{syscall.SIGTTIN, syscall.SIGHUP} {
				if err := syscall.Kill(os.Getpid(), sig); err != nil {
					fmt.Println(err)
				}
				<-seen
			}
		}
		return cfg
	}
	trees["flooded with signals"] = func() coppice.Config {
		cfg := pool(1, idle)
		web := cfg.Children[0].(coppice.Pool)
		web.Isolation = coppice.GoroutineIsolation // SIGTTIN adds many
		cfg.Children[0] = web
		cfg.Hooks.Started = func(*coppice.Runtime) { fmt.Println("UP") }
		return cfg
	}
	trees["reads its terminal"] = func() coppice.Config {
		cfg := pool(1, idle)
		cfg.Hooks.Started = func(*coppice.Runtime) {
			_, err := os.Stdin.Read(make([]byte, 1))
			fmt.Println("READ", err)
		}
		return cfg
	}
}

// TestFloodOfSignals: however many signals of one kind come, and however often, SIGTERM ends the
// program in order.
func TestFloodOfSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{
		syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGWINCH, syscall.SIGPIPE, syscall.SIGURG,
	} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			t.Parallel()
			p := runtimetest.Start(t, []string{treeVar + "=flooded with signals"})
			p.Await("^UP$")
			under, flooded := make(chan struct{}), make(chan struct{})
			go func() { // ends with the program
				defer close(flooded)
				for n := 0; ; n++ {
					if n == 1000 {
						close(under)
					}
					select {
					case <-p.Ended():
						return
					default:
						_ = syscall.Kill(p.PID(), sig)
					}
				}
			}()
			<-under
			p.Signal(syscall.SIGTERM)
			if code := p.Wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			<-flooded
		})
	}
}

// TestEchoOfASignal: wrappers such as timeout(1) send SIGTERM twice; a request that is under way
// goes on. SIGQUIT kills.
func TestEchoOfASignal(t *testing.T) {
	p := startTold(t, "round-robin")
	finish := p.beginInWorker()
	p.Signal(syscall.SIGTERM)
	p.Await("shutting down")
	p.Signal(syscall.SIGINT)
	p.Signal(syscall.SIGTERM)
	if err := finish(); err != nil {
		t.Errorf("the request: %v", err)
	}
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}

	p = startTold(t, "round-robin")
	p.beginInWorker()
	p.Signal(syscall.SIGTERM)
	p.Await("shutting down")
	p.Signal(syscall.SIGQUIT)
	p.Await("second signal: killing what is left")
	if code := p.Wait(); code != 1 {
		t.Errorf("exit code %d", code)
	}
}

// TestReadingBackgroundJob: a background job that reads its terminal gets an error, not workers
// without end; it can be given a worker by SIGTTIN before that, and it hears SIGTERM.
func TestReadingBackgroundJob(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	shell, shown := onTerminal(t, `set -m; "$0" & wait`, self, treeVar+"=reads its terminal") // -m: a job gets a separate group
	var program int
	runtimetest.Eventually(t, "the program", func() bool {
		if kids := runtimetest.Children(t, shell.Process.Pid); len(kids) == 1 {
			program = kids[0]
		}
		return program != 0 && strings.Contains(shown(), "READ ")
	})
	if kids := runtimetest.Children(t, program); len(kids) != 1+1 {
		t.Errorf("%d children, of 2", len(kids))
	}
	if err := syscall.Kill(program, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := shell.Wait(); err != nil {
		t.Error(err)
	}
	if out := shown(); !strings.Contains(out, "READ read /dev/stdin: input/output error") || !strings.Contains(out, "as a background job: its reads fail") {
		t.Errorf("the terminal shows %q", out)
	}
}

// onTerminal runs a shell's script on a terminal of its own; shown returns what that shows.
func onTerminal(t *testing.T, script, program, env string) (shell *exec.Cmd, shown func() string) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminal can be made here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Skipf("no terminal can be made here: %v", err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	shell = exec.Command("sh", "-c", script, program)
	shell.Env = append(os.Environ(), "COPPICE_TEST_PROGRAM=1", env)
	shell.Stdin, shell.Stdout, shell.Stderr = terminal, terminal, terminal
	shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if shell.ProcessState != nil {
			return
		}
		for _, pid := range runtimetest.Children(t, shell.Process.Pid) { // of a test that failed
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		_, _ = shell.Process.Kill(), shell.Wait()
	})
	var mu sync.Mutex
	var text strings.Builder
	ended := make(chan struct{})
	go func() { // ends with the last program on the terminal: EIO, pty(7)
		defer close(ended)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			mu.Lock()
			text.Write(b[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return shell, func() string {
		if shell.ProcessState != nil {
			<-ended
		}
		mu.Lock()
		defer mu.Unlock()
		return text.String()
	}
}

// TestSignalsBeforeItIsUp: a process that learns from the program's own hook that the tree is there
// may ask for a reload: the signal is not lost, though the tree counts as up a moment later.
func TestSignalsBeforeItIsUp(t *testing.T) {
	p := runtimetest.Start(t, []string{treeVar + "=signals before it is up"})
	p.Await(`reloaded generation=2 `)
	runtimetest.Eventually(t, "two workers", func() bool { return len(runtimetest.Children(t, p.PID())) == 2+1 })
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
