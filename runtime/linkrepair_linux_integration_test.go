//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

const channelSockets = 3 // of one process: control, what it sends data on, what it receives data on

func init() {
	trees["broken sockets"] = func() coppice.Config {
		return coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{
			// Transient: the end of such a worker must not look like its own decision.
			Name: "web", Size: 2 * channelSockets, Restart: supervisor.Transient,
			Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				go func() {
					for {
						c, err := ln.Accept()
						if err != nil {
							return
						}
						_, _ = fmt.Fprintf(c, "%s %d", w.Name(), w.ID())
						_ = c.Close()
					}
				}()
				if err := w.Ready(); err != nil {
					return err
				}
				<-ctx.Done()
				return nil
			},
		}}}
	}
}

func init() {
	trees["links that do not hold"] = func() coppice.Config {
		return pool(1, func(ctx context.Context, w *coppice.Worker) error {
			if err := w.Ready(); err != nil {
				return err
			}
			if w.Incarnation() == 1 {
				go coppice.SayUnlinked(ctx, w)
			}
			<-ctx.Done()
			return nil
		})
	}
}

// shutSocket shuts a socket of another process down, the n-th of its channels and links.
func shutSocket(t *testing.T, pid, n int) {
	t.Helper()
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Skip(err)
	}
	defer unix.Close(pidfd)
	var numbers []int
	for fd, what := range runtimetest.Descriptors(t, pid) {
		if strings.HasPrefix(what, "socket:") {
			numbers = append(numbers, fd)
		}
	}
	slices.Sort(numbers)
	for _, fd := range numbers {
		own, err := unix.PidfdGetfd(pidfd, fd, 0)
		if errors.Is(err, unix.EBADF) {
			continue // a connection, which has ended
		}
		if err != nil {
			t.Skip("pidfd_getfd:", err)
		}
		typ, _ := unix.GetsockoptInt(own, unix.SOL_SOCKET, unix.SO_TYPE)
		if n >= 0 && typ == unix.SOCK_SEQPACKET {
			if n == 0 {
				err = unix.Shutdown(own, unix.SHUT_RDWR)
			}
			n--
		}
		_ = unix.Close(own)
		if err != nil {
			t.Fatal(err)
		}
	}
	if n >= 0 {
		t.Fatalf("process %d has too few sockets: %v", pid, numbers)
	}
}

// workers are the workers of the tree, by name.
func (p *runningTree) workers() map[string]coppice.Tree {
	got := map[string]coppice.Tree{}
	p.Snapshot().Walk(func(n coppice.Tree) {
		if n.Role == "worker" {
			got[n.Name] = n
		}
	})
	return got
}

// serving waits until each worker of the tree, as it is then, has answered.
func (p *runningTree) serving() {
	p.t.Helper()
	runtimetest.Eventually(p.t, "every worker to answer", func() bool {
		want := map[string]bool{}
		slots := p.workers()
		for name, w := range slots {
			want[fmt.Sprint(name, " ", w.ID)] = true
		}
		addr := ""
		for _, l := range p.Listeners() {
			addr = l.Addr.String()
		}
		for range 4 * len(slots) {
			if got, err := answerOf(addr); err == nil && got != "" {
				delete(want, got)
			}
		}
		return len(slots) == 2*channelSockets && len(want) == 0
	})
}

// TestBrokenSockets: one of the sockets between two processes of the tree is shut down while both
// live, as code that has taken it for its own does; each of those of a worker's channel to the
// master and of its link to the listener process, each in another worker, and one of the listener
// process. The link is made anew, or the process replaced, and all serve.
func TestBrokenSockets(t *testing.T) {
	p := startTree(t, "broken sockets")
	p.serving()
	before := p.workers()
	for i := range 2 * channelSockets {
		shutSocket(t, before[fmt.Sprint("web/", i)].PID, i)
	}
	runtimetest.Eventually(t, "each to have a new link", func() bool {
		relinked, replaced := 0, 0
		for name, w := range p.workers() {
			switch {
			case w.ID != before[name].ID && w.State == coppice.StateRunning:
				replaced++
			case w.Relinked == 1:
				relinked++
			}
		}
		// Which of a process's sockets are its channel's is a guess by their numbers: mostly as
		// many as its link's.
		return relinked+replaced == 2*channelSockets && relinked > 0 && replaced > 0
	})
	p.serving()

	listener := 0
	p.Snapshot().Walk(func(n coppice.Tree) {
		if n.Name == "listener" {
			listener = n.PID
		}
	})
	shutSocket(t, listener, 0) // its channel
	runtimetest.Eventually(t, "another listener process", func() bool {
		now := 0
		p.Snapshot().Walk(func(n coppice.Tree) {
			if n.Name == "listener" && n.State == coppice.StateRunning {
				now = n.PID
			}
		})
		return now != 0 && now != listener
	})
	p.serving()
}

// TestLinkThatDoesNotHold: a worker whose links break again and again, or that says so, is
// replaced.
func TestLinkThatDoesNotHold(t *testing.T) {
	p := startTree(t, "links that do not hold")
	runtimetest.Eventually(t, "another worker, for that reason", func() bool {
		w := p.workers()["web/0"]
		return w.Incarnation > 1 && w.State == coppice.StateRunning && strings.Contains(w.LastExit, string(coppice.KilledBadLinks))
	})
}
