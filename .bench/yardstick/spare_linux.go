package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/supervisor"
)

// serveSpare is the tree of respawn_spare: one worker and a warm spare. It prints "exited NS" when
// its supervisor knows of the worker's end, "warm ID" when there is a spare, and a worker prints
// "claimed PID NS" with its first connection. NS is the time in nanoseconds since 1970.
func serveSpare() {
	coppice.Main(coppice.Config{
		Logger: slog.New(slog.DiscardHandler), // each kill is an error to it
		Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) {
			sub := rt.Subscribe(256)
			fmt.Println("serving on", rt.Listeners()[0].Addr)
			tellWarm(rt)
			go func() { // ends with the tree
				for ev := range sub.Events(context.Background()) {
					if ev.Kind == supervisor.ChildExited {
						fmt.Println("exited", ev.Time.UnixNano())
					}
					if pool, ok := ev.Info.(coppice.PoolEvent); ok && pool.Kind == coppice.SpareReady {
						tellWarm(rt)
					}
				}
			}()
		}},
		Children: []coppice.ChildSpec{coppice.Pool{
			Name: "web", Size: 1, Spares: 1, Intensity: supervisor.Intensity{Max: 1 << 20, Period: time.Second},
			Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				first := sync.OnceFunc(func() { fmt.Println("claimed", os.Getpid(), time.Now().UnixNano()) })
				return w.Serve(ctx, ln, &http.Server{
					Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
					ConnState: func(_ net.Conn, s http.ConnState) {
						if s == http.StateNew {
							first()
						}
					},
				})
			},
		}},
	})
}

func tellWarm(rt *coppice.Runtime) {
	rt.Snapshot().Walk(func(t coppice.Tree) {
		if t.Role == "spare" && t.State == supervisor.Running.String() {
			fmt.Println("warm", t.ID)
		}
	})
}

// respawnedSpare kills the only worker for d, each time that there is a warm spare, while clients
// connect without end. What it measures is the time from when the end is known to the first
// connection that the spare has claimed; with fromKill, from the kill.
func respawnedSpare(d time.Duration, cmd *exec.Cmd, fromKill bool) (r result, err error) {
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return r, err
	}
	s := &server{}
	if err := s.start(cmd); err != nil {
		return r, err
	}
	defer s.stop()
	var (
		lines                   = bufio.NewScanner(out)
		addr                    string
		pid, warm, last         int
		claimed, exited, killed int64
		stop                    = make(chan struct{})
		clients                 sync.WaitGroup
		took                    []time.Duration
		began                   time.Time
		cpu                     time.Duration
	)
	defer clients.Wait()
	defer close(stop)
	for lines.Scan() {
		line := lines.Text()
		if i := strings.Index(line, "| "); i >= 0 { // a worker's
			line = line[i+2:]
		}
		switch word, _, _ := strings.Cut(line, " "); word {
		case "serving":
			addr = strings.TrimPrefix(line, "serving on ")
			for range 2 {
				clients.Go(func() { connectUntil(stop, addr) })
			}
		case "exited":
			_, err = fmt.Sscanf(line, "exited %d", &exited)
		case "claimed":
			_, err = fmt.Sscanf(line, "claimed %d %d", &pid, &claimed)
		case "warm":
			_, err = fmt.Sscanf(line, "warm %d", &warm)
		}
		if err != nil {
			return r, fmt.Errorf("%q: %w", line, err)
		}
		if pid == 0 || warm == last || killed != 0 && (exited == 0 || claimed == 0) {
			continue
		}
		switch {
		case killed == 0:
			began, cpu = time.Now(), cpuWithChildren(cmd.Process.Pid)
		case fromKill:
			took = append(took, time.Duration(claimed-killed))
		default:
			took = append(took, time.Duration(claimed-exited))
		}
		if len(took) >= spareKills || len(took) > 0 && time.Since(began) > d {
			break
		}
		last, exited, claimed = warm, 0, 0
		killed = time.Now().UnixNano()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return r, err
		}
	}
	if len(took) == 0 {
		return r, fmt.Errorf("the program ended: %w", lines.Err())
	}
	cpu = cpuWithChildren(cmd.Process.Pid) - cpu
	slices.Sort(took)
	at := func(q float64) float64 {
		return float64(took[min(int(q*float64(len(took))), len(took)-1)].Nanoseconds()) / 1e3
	}
	return result{
		Unit: "ms", Value: at(0.5) / 1e3, P50: at(0.5), P99: at(0.99),
		CPU: max(1, float64(cpu.Nanoseconds())/float64(len(took))),
	}, nil
}

// spareKills is how many kills are enough.
const spareKills = 50

// connectUntil makes connections, one after the other, that wait for an answer. What is cut is the
// kills'.
func connectUntil(stop <-chan struct{}, addr string) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			continue
		}
		_ = c.SetDeadline(time.Now().Add(time.Second))
		if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err == nil {
			_, _ = io.Copy(io.Discard, c)
		}
		_ = c.Close()
	}
}
