//go:build linux

package netactor_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coppice-go/coppice/netactor"
)

// A worker is killed, or stopped and then killed, at each named point of a hand-over. A connection
// that it had not claimed is served once, by the other worker; one that it had claimed is cut, and
// counted as died; one that it had closed is neither.
func TestStruckAtEachPoint(t *testing.T) {
	for _, stop := range []bool{false, true} {
		for _, point := range []string{"joined", "offered", "claimed", "closed"} {
			t.Run(fmt.Sprintf("%s stopped=%v", point, stop), func(t *testing.T) {
				tr := newTree(t, false, func(tr *tree) { tr.claim = 50 * time.Millisecond })
				r := loopback
				r.Policy = netactor.RoundRobin
				addr, err := tr.table.Open(testContext(t), "listener/points", r)
				if err != nil {
					t.Fatal(err)
				}
				vars := map[string]string{"ADDRESS": addr.String(), "POLICY": r.Policy.String()}
				struck := tr.startProc(0, vars)
				tr.joined(1)
				of := func() netactor.WorkerCounts {
					st := tr.stats()
					for _, w := range st.Workers {
						if w.Worker.ID == struck.ID {
							return w.Counts
						}
					}
					return st.Gone
				}
				const n = 10
				var clients []net.Conn
				if point != "joined" {
					if point == "offered" { // it does not get to claim them
						stopProc(t, struck.cmd.Process)
					}
					for range n {
						clients = append(clients, dial(t, addr))
					}
				}
				answered := func(c net.Conn) error {
					if _, err := c.Write([]byte{'x'}); err != nil {
						return err
					}
					b, err := io.ReadAll(c)
					if err == nil && string(b) != "ok" {
						err = fmt.Errorf("answer %q", b)
					}
					return err
				}
				switch point {
				case "offered":
					until(t, "the offers", func() bool { return of().Given == n })
				case "claimed":
					until(t, "the claims", func() bool { return of().Claimed == n })
				case "closed":
					for _, c := range clients {
						if err := answered(c); err != nil {
							t.Fatal(err)
						}
					}
				}
				other := tr.startProc(1, vars)
				tr.joined(2)
				if stop {
					stopProc(t, struck.cmd.Process)
				}
				if point == "joined" || point == "offered" {
					// New connections go to both workers. Offers to the stopped worker are revoked;
					// the other connections are claimed, or come back with its death.
					for range n {
						clients = append(clients, dial(t, addr))
					}
					until(t, "all to be accepted", func() bool { return tr.stats().Counts.Accepted == uint64(len(clients)) })
				}
				if stop && point == "offered" {
					// No worker has to die for it: the claim deadline passes.
					until(t, "all to be claimed by the other", func() bool {
						c := tr.stats().Counts
						return c.Claimed == uint64(len(clients))
					})
				}
				before := of()
				_ = struck.cmd.Process.Kill()
				<-struck.gone
				cut := 0
				if point != "closed" {
					for _, c := range clients {
						if answered(c) != nil {
							cut++
						}
					}
				}
				until(t, "the counts to settle", func() bool {
					c := tr.stats().Counts
					return c.Waiting+c.Offered == 0
				})
				st := tr.stats()
				if !st.Counts.Balanced() || !st.Gone.Balanced() || st.Counts.Dropped != 0 {
					t.Errorf("%+v, the dead worker %+v", st.Counts, st.Gone)
				}
				if uint64(cut) != st.Gone.Died || st.Gone.Claimed != st.Gone.Finished+st.Gone.Died {
					t.Errorf("%d cut at the client, the dead worker %+v", cut, st.Gone)
				}
				switch point {
				case "offered":
					if st.Gone.Died != 0 && stop {
						t.Errorf("died with unclaimed connections: %+v, before %+v", st.Gone, before)
					}
				case "claimed":
					if st.Gone.Died != n {
						t.Errorf("%d died, want %d", st.Gone.Died, n)
					}
				case "closed":
					if st.Gone.Died != 0 || st.Gone.Finished != n {
						t.Errorf("all was closed: %+v", st.Gone)
					}
				}
				_ = other.cmd.Process.Kill()
				<-other.gone
			})
		}
	}
}

// A slow worker keeps the connections that it has claimed and loses the rest: while it serves one
// connection, the others in its queue go to another worker when the claim deadline passes.
func TestSlowWorker(t *testing.T) {
	tr := newTree(t, false, func(tr *tree) { tr.claim = 50 * time.Millisecond })
	slow := tr.worker(0)
	ln := slow.mustListen(loopback)
	tr.joined(1)
	var clients []net.Conn
	for range 6 {
		clients = append(clients, dial(t, ln.Addr()))
	}
	mine, err := ln.Accept() // one alone: it is busy
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	go serveID(tr.worker(1).mustListen(loopback2(ln.Addr().String())), "other")
	for _, c := range clients[1:] {
		if b, err := io.ReadAll(c); string(b) != "other" || err != nil {
			t.Errorf("answer %q, %v", b, err)
		}
	}
	_, _ = io.WriteString(mine, "slow")
	mine.Close()
	if b, err := io.ReadAll(clients[0]); string(b) != "slow" || err != nil {
		t.Errorf("answer %q, %v", b, err)
	}
	tr.settled(6)
}

// stopProc stops a process and waits until all its threads have stopped: on a busy machine the
// other threads go on until the thread that takes the signal runs.
func stopProc(t *testing.T, p *os.Process) {
	t.Helper()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	until(t, "the process to stop", func() bool {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Pid))
		for _, name := range tasks {
			b, rerr := os.ReadFile(name)
			_, state, _ := strings.Cut(string(b), ") ")
			if rerr == nil && !strings.HasPrefix(state, "T") {
				return false
			}
		}
		return err == nil && len(tasks) > 0
	})
}
