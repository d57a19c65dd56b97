package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/bench/yardstick/peers"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/supervisor"
)

// respawnWorkers is the size of the pool of respawn: one is killed, the other serves on.
var respawnWorkers int

// respawnSpare has respawn serve the tree of respawn_spare.
var respawnSpare bool

func respawnFlags(fs *flag.FlagSet) {
	fs.IntVar(&respawnWorkers, "workers", 2, "worker processes")
	fs.BoolVar(&respawnSpare, "spare", false, "with -serve: one worker and a spare")
}

// serveRespawn is the tree of respawn: HTTP servers on one address. It prints "ready PID" each time
// that a worker has taken the place of another.
func serveRespawn() {
	if respawnSpare {
		serveSpare()
	}
	serveKilled(tellReady, func(rt *coppice.Runtime, ev coppice.Event) {
		if ev.Kind == coppice.ChildStarted {
			tellReady(rt)
		}
	}, coppice.Pool{
		Size: respawnWorkers,
		Worker: func(ctx context.Context, w *coppice.Worker) error {
			ln, err := w.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(peers.OK)})
		},
	})
}

// serveKilled is a tree of a pool "web" whose workers are killed without end. It calls ready when
// it is up, then told with each event.
func serveKilled(ready func(*coppice.Runtime), told func(*coppice.Runtime, coppice.Event), web coppice.Pool) {
	web.Name, web.Intensity = "web", supervisor.Intensity{Max: 1 << 20, Period: time.Second}
	coppice.Main(coppice.Config{
		Logger: slog.New(slog.DiscardHandler), // each kill is an error to it
		Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) {
			sub := rt.Events(coppice.FromNow)
			fmt.Println("serving on", rt.Listeners()[0].Addr)
			ready(rt)
			go func() { // ends with the tree
				for ev := range sub.All(context.Background()) {
					told(rt, ev)
				}
			}()
		}},
		Children: []coppice.ChildSpec{web},
	})
}

func tellReady(rt *coppice.Runtime) {
	rt.Snapshot().Walk(func(t coppice.Tree) {
		if t.Name == "web/0" && t.PID != 0 && t.State == coppice.StateRunning {
			fmt.Println("ready", t.PID)
		}
	})
}

func respawnRows() []row {
	return []row{
		{"respawn_cold", func(d time.Duration) (result, error) {
			exe, err := os.Executable()
			if err != nil {
				return result{}, err
			}
			return respawned(d, exec.Command(exe, "respawn", "-serve", "-workers", strconv.Itoa(respawnWorkers)))
		}},
		{"respawn_spare", spareRow(false)},
		{"respawn_spare_kill", spareRow(true)},
		{"node_respawn", func(d time.Duration) (result, error) {
			cmd, remove, err := nodeProgram(peers.RespawnNode, respawnWorkers)
			if err != nil {
				return result{}, err
			}
			defer remove()
			return respawned(d, cmd)
		}},
	}
}

func spareRow(fromKill bool) func(time.Duration) (result, error) {
	return func(d time.Duration) (result, error) {
		exe, err := os.Executable()
		if err != nil {
			return result{}, err
		}
		return respawnedSpare(d, exec.Command(exe, "respawn", "-serve", "-spare"), fromKill)
	}
}

// respawned starts a program that prints "ready PID" when a worker is ready, and for d kills that
// worker as soon as it is, and waits for the next. At least one is killed.
func respawned(d time.Duration, cmd *exec.Cmd) (r result, err error) {
	s := &server{}
	lines, err := s.startPiped(cmd)
	if err != nil {
		return r, err
	}
	defer s.stop()
	last := 0
	ready := func() (int, error) {
		for lines.Scan() {
			if pid, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
				if n, err := strconv.Atoi(pid); err != nil || n != last {
					last = n
					return n, err
				}
			}
		}
		return 0, fmt.Errorf("the program ended: %w", lines.Err())
	}
	pid, err := ready()
	if err != nil {
		return r, err
	}
	var took []time.Duration
	cpu := cpuWithChildren(cmd.Process.Pid)
	for began := time.Now(); len(took) == 0 || time.Since(began) < d; {
		killed := time.Now()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return r, err
		}
		if pid, err = ready(); err != nil {
			return r, err
		}
		took = append(took, time.Since(killed))
	}
	return replacements(took, cpuWithChildren(cmd.Process.Pid)-cpu), nil
}

// replacements is the result of kills: how long each took, and the processor time of all.
func replacements(took []time.Duration, cpu time.Duration) result {
	slices.Sort(took)
	at := func(q float64) float64 {
		return float64(took[min(int(q*float64(len(took))), len(took)-1)].Nanoseconds()) / 1e3
	}
	return result{
		Unit: "ms", Value: at(0.5) / 1e3, P50: at(0.5), P99: at(0.99),
		CPU: max(1, float64(cpu.Nanoseconds())/float64(len(took))),
	}
}

// cpuWithChildren is the processor time of pid and of its children that it has waited for: in ticks
// of 10 ms.
func cpuWithChildren(pid int) time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var ticks time.Duration
	for i := 11; i < min(15, len(f)); i++ { // utime, stime, cutime, cstime (proc_pid_stat(5))
		n, _ := strconv.ParseInt(f[i], 10, 64)
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond
}
