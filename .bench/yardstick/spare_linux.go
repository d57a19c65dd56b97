package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
)

// serveSpare is the tree of respawn_spare: one worker and a spare. It prints "exited NS" when
// its supervisor knows of the worker's end, "spare ID" when there is a spare, and a worker prints
// "claimed PID NS" with its first connection. NS is the time in nanoseconds since 1970.
func serveSpare() {
	serveKilled(tellSpare, func(rt *coppice.Runtime, ev coppice.Event) {
		if ev.Kind == coppice.ChildExited {
			fmt.Println("exited", ev.Time.UnixNano())
		}
		if ev.Kind == coppice.SpareReady {
			tellSpare(rt)
		}
	}, coppice.Pool{
		Size: 1, Spares: 1,
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
	})
}

func tellSpare(rt *coppice.Runtime) {
	rt.Snapshot().Walk(func(t coppice.Tree) {
		if t.Role == "spare" && t.State == coppice.StateRunning {
			fmt.Println("spare", t.ID)
		}
	})
}

// respawnedSpare kills the only worker for d, each time that there is a spare, while clients
// connect without end. What it measures is the time from when the end is known to the first
// connection that the spare has claimed; with fromKill, from the kill.
func respawnedSpare(d time.Duration, cmd *exec.Cmd, fromKill bool) (r result, err error) {
	s := &server{}
	lines, err := s.startPiped(cmd)
	if err != nil {
		return r, err
	}
	defer s.stop()
	var (
		addr                    string
		pid, spare, last        int
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
		case "spare":
			_, err = fmt.Sscanf(line, "spare %d", &spare)
		}
		if err != nil {
			return r, fmt.Errorf("%q: %w", line, err)
		}
		if pid == 0 || spare == last || killed != 0 && (exited == 0 || claimed == 0) {
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
		last, exited, claimed = spare, 0, 0
		killed = time.Now().UnixNano()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return r, err
		}
	}
	if len(took) == 0 {
		return r, fmt.Errorf("the program ended: %w", lines.Err())
	}
	return replacements(took, cpuWithChildren(cmd.Process.Pid)-cpu), nil
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
