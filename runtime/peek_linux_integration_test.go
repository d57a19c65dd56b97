//go:build linux

package coppice_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func init() {
	trees["peeks"] = func() coppice.Config {
		return coppice.Config{Children: []coppice.ChildSpec{
			coppice.ListenerSpec{
				Name: "bytes", Network: "tcp", Address: "127.0.0.1:0", Policy: coppice.Hash,
				Peek: coppice.Peek{By: coppice.PeekBytes, Bytes: 4, Timeout: time.Minute},
			},
			coppice.ListenerSpec{
				Name: "line", Network: "tcp", Address: "127.0.0.1:0", Policy: coppice.Hash,
				Peek: coppice.Peek{By: coppice.PeekFirst, Timeout: time.Minute}, Hooks: coppice.ListenerHooks{First: lineLength},
			},
			coppice.Pool{Name: "web", Size: 3, Worker: func(ctx context.Context, w *coppice.Worker) error {
				own, err := w.ListenSpec(ctx, coppice.ListenerSpec{
					Name: "own", Network: "tcp", Address: "127.0.0.2:0", Policy: coppice.Hash,
					Peek: coppice.Peek{By: coppice.PeekBytes, Bytes: 4, Timeout: time.Minute},
				})
				if err != nil {
					return err
				}
				go echoLine(w, own)
				for _, name := range []string{"bytes", "line"} {
					ln, err := w.Listener(ctx, name)
					if err != nil {
						return err
					}
					go echoLine(w, ln)
				}
				if err := w.Ready(); err != nil {
					return err
				}
				<-ctx.Done()
				return nil
			}},
		}}
	}
}

func lineLength(first []byte) (uint64, coppice.PeekVerdict) {
	line, _, whole := bytes.Cut(first, []byte("\n"))
	if !whole {
		return 0, coppice.PeekMore
	}
	return uint64(len(line)), coppice.PeekKeyed
}

// echoLine answers a line of each connection with the worker's slot and the line.
func echoLine(w *coppice.Worker, ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			var line []byte
			for b := make([]byte, 1); !bytes.HasSuffix(line, []byte("\n")); line = append(line, b[0]) {
				if _, err := c.Read(b); err != nil {
					return
				}
			}
			_, _ = io.WriteString(c, strconv.Itoa(w.Slot())+" "+string(line))
		}()
	}
}

// homeOf says a line and returns the slot that has answered.
func homeOf(t *testing.T, addr, line string) string {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, runtimetest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(runtimetest.Patience))
	_, _ = io.WriteString(c, line[:2])
	_, _ = io.WriteString(c, line[2:]+"\n")
	b, err := io.ReadAll(c)
	slot, said, _ := strings.Cut(string(b), " ")
	if err != nil || said != line+"\n" {
		t.Fatalf("%q, %v", b, err)
	}
	return slot
}

// TestPeek: connections are placed by their first bytes, with a listener of the tree, of a worker,
// and with a user's function. A kill of the listener process cuts only the client that it waited
// for; its replacement places by the same circle. A worker's replacement has the keys of its
// predecessor.
func TestPeek(t *testing.T) {
	p := startTree(t, "peeks")
	addrs := map[string]string{}
	for _, l := range p.Listeners() {
		addrs[l.Name] = l.Addr.String()
	}
	homes := map[string]string{}
	slots := map[string]bool{}
	ask := func(first bool) {
		t.Helper()
		for name, addr := range addrs {
			for i := range 12 {
				line := strconv.Itoa(1000+i) + strings.Repeat("x", i)
				if name == "line" {
					line = strings.Repeat("y", 2+i)
				}
				home := homeOf(t, addr, line)
				if first {
					homes[name+line] = home
				}
				if home != homes[name+line] {
					t.Errorf("%s: %s was served by slot %s, before by %s", name, line, home, homes[name+line])
				}
				slots[name+home] = true
			}
		}
	}
	ask(true)
	ask(false)
	if len(slots) != 9 {
		t.Errorf("of 3 slots and 3 listeners there are %d with keys: %v", len(slots), slots)
	}

	silent, err := net.Dial("tcp", addrs["bytes"])
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	runtimetest.Eventually(t, "the listener process to wait for it", func() bool { return peeking(t, p) == 1 })
	if err := syscall.Kill(p.pid("listener"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = silent.SetDeadline(time.Now().Add(runtimetest.Patience))
	if b, err := io.ReadAll(silent); len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	runtimetest.Eventually(t, "all to join the new listener process", func() bool { return taking(t, p, 3) })
	ask(false)

	worker := p.pid("web/1")
	if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "its replacement", func() bool {
		replaced := false
		p.Snapshot().Walk(func(n coppice.Tree) { replaced = replaced || n.Name == "web/1" && n.PID != worker && n.PID != 0 })
		return replaced && taking(t, p, 3)
	})
	ask(false)
	l, err := p.ListenerStats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range l {
		if c := l.Stats.Counts; c.Peeked != 24 || c.Faults != 0 || c.PeekNone+c.PeekLate+c.PeekOver != 0 || !c.Balanced() {
			t.Errorf("%s: %+v", l.Name, c)
		}
	}
}

// peeking is how many connections the listener process waits for.
func peeking(t *testing.T, p *runningTree) (n int) {
	t.Helper()
	l, err := p.ListenerStats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range l {
		if l.Stats != nil {
			n += l.Stats.Counts.Peeking
		}
	}
	return n
}

// taking reports whether at each listener n workers take part.
func taking(t *testing.T, p *runningTree, n int) bool {
	t.Helper()
	all, err := p.ListenerStats(t.Context())
	if err != nil {
		return false // no listener process is there
	}
	for _, l := range all {
		if l.Stats == nil {
			return false
		}
		joined := 0
		for _, w := range l.Stats.Workers {
			if w.Joined && w.Suspended == "" {
				joined++
			}
		}
		if joined != n {
			return false
		}
	}
	return true
}
