//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// echoSlot writes the worker's slot to each connection of ln, until ln is closed.
func echoSlot(w *coppice.Worker, ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, strconv.Itoa(w.Slot()))
		_ = c.Close()
	}
}

func init() {
	trees["listeners at run time"] = func() coppice.Config {
		return pool(2, func(ctx context.Context, w *coppice.Worker) error {
			if err := w.Ready(); err != nil {
				return err
			}
			for ctx.Err() == nil { // each listener of that name, one after the other
				ln, err := w.AwaitListener(ctx, "late")
				if err != nil {
					continue
				}
				stop := context.AfterFunc(ctx, func() { ln.Close() })
				echoSlot(w, ln)
				stop()
			}
			return nil
		})
	}
	trees["functions of a policy"] = func() coppice.Config {
		return coppice.Config{Children: []coppice.ChildSpec{
			coppice.Supervisor{Name: "front", Children: []coppice.ChildSpec{
				coppice.ListenerSpec{Name: "picked", Network: "tcp", Address: "127.0.0.1:0", Policy: coppice.Custom, Hooks: coppice.ListenerHooks{Picker: slotOne{}}},
				coppice.ListenerSpec{
					Name: "hashed", Network: "tcp", Address: "127.0.0.1:0", Policy: coppice.Hash,
					Hooks: coppice.ListenerHooks{Key: func(_, local netip.AddrPort) uint64 { return uint64(local.Port()) }},
				},
			}},
			coppice.Pool{Name: "web", Size: 3, Worker: func(ctx context.Context, w *coppice.Worker) error {
				for _, name := range []string{"picked", "hashed"} {
					ln, err := w.Listener(ctx, name)
					if err != nil {
						return err
					}
					go echoSlot(w, ln)
				}
				if err := w.Ready(); err != nil {
					return err
				}
				<-ctx.Done()
				return nil
			}},
		}}
	}
	trees["limits and modes"] = func() coppice.Config {
		var children []coppice.ChildSpec
		for _, p := range []coppice.Policy{coppice.RoundRobin, coppice.Shared} {
			children = append(children, coppice.ListenerSpec{
				Name: p.String(), Network: "unix", Address: filepath.Join(os.Getenv("COPPICE_TEST_DIR"), p.String()), Policy: p, Mode: 0o707,
			})
		}
		children = append(children,
			coppice.ListenerSpec{
				Name: "limited", Network: "tcp", Address: "127.0.0.1:0",
				Limits: coppice.Limits{Total: 2, AtLimit: coppice.AnswerAtLimit, Answer: "full"},
			},
			coppice.Pool{Name: "web", Size: 2, Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listener(ctx, "limited")
				if err != nil {
					return err
				}
				go func() {
					for {
						c, err := ln.Accept()
						if err != nil {
							return
						}
						_, _ = io.WriteString(c, "in") // and is held
					}
				}()
				if err := w.Ready(); err != nil {
					return err
				}
				<-ctx.Done()
				return nil
			}})
		return coppice.Config{Children: children}
	}
}

type slotOne struct{}

func (slotOne) Pick(_ netip.AddrPort, free []coppice.Load) int {
	for i, w := range free {
		if w.Worker.Slot == 1 {
			return i
		}
	}
	return 0
}

// answerOf connects and reads to the end.
func answerOf(addr string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, runtimetest.Patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(runtimetest.Patience))
	b, err := io.ReadAll(c)
	return string(b), err
}

// TestListenersAtRunTime: a listener is added, paused, resumed and removed while the tree runs, and
// all workers see it; its counts are in the tree.
func TestListenersAtRunTime(t *testing.T) {
	p := startTree(t, "listeners at run time")
	ctx := t.Context()
	late := coppice.ListenerSpec{Name: "late", Network: "tcp", Address: "127.0.0.1:0"}
	for round := range 2 {
		if err := p.StartChild(ctx, "", late); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		at := p.Listeners()[0].Addr
		seen := map[string]int{}
		served := 0
		runtimetest.Eventually(t, "both workers to serve", func() bool {
			s, err := answerOf(at.String())
			if err != nil {
				t.Fatal(err)
			}
			seen[s]++
			served++
			return len(seen) == 2
		})
		if err := p.StartChild(ctx, "", late); !errors.Is(err, supervisor.ErrAlreadyStarted) {
			t.Errorf("added twice: %v", err)
		}

		if err := p.PauseListener("late"); err != nil {
			t.Fatal(err)
		}
		runtimetest.Eventually(t, "the pause to be known", func() bool {
			l, err := p.ListenerStats(ctx)
			return err == nil && len(l) == 1 && l[0].Paused && l[0].Stats != nil && l[0].Stats.Paused
		})
		answer := make(chan error, 1)
		go func() {
			_, err := answerOf(at.String())
			answer <- err
		}()
		select {
		case err := <-answer:
			t.Errorf("answered while paused: %v", err)
		default:
		}
		if err := p.ResumeListener(at.String()); err != nil { // by its address too
			t.Fatal(err)
		}
		if err := <-answer; err != nil {
			t.Error(err)
		}

		served++
		var node coppice.Tree
		runtimetest.Eventually(t, "the counts in the tree", func() bool {
			p.Snapshot().Walk(func(n coppice.Tree) {
				if n.Role == "listener" && n.Name == "late" {
					node = n
				}
			})
			return len(node.Listeners) == 1 && node.Listeners[0].Stats != nil && node.Listeners[0].Stats.Counts.Claimed == uint64(served)
		})
		l := node.Listeners[0]
		if l.Addr.String() != at.String() || len(l.Stats.Workers) != 2 || l.Stats.HandOver.Count() != uint64(served) || l.Fairness <= 0.5 || l.StatsAt.IsZero() {
			t.Errorf("in the tree: %+v", l)
		}

		if err := errors.Join(p.TerminateChild(ctx, "late"), p.DeleteChild(ctx, "late")); err != nil {
			t.Fatal(err)
		}
		runtimetest.Eventually(t, "the port to be free", func() bool {
			_, err := answerOf(at.String())
			return err != nil
		})
		if len(p.Listeners()) != 0 {
			t.Errorf("%v", p.Listeners())
		}
	}
	for what, err := range map[string]error{
		"pause": p.PauseListener("late"), "resume": p.ResumeListener("late"),
	} {
		if !errors.Is(err, coppice.ErrNoListener) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := p.StartChild(ctx, "", coppice.ListenerSpec{Name: "x", Network: "carrier pigeon"}); err == nil {
		t.Error("added over a carrier pigeon")
	}
	err := p.StartChild(ctx, "", coppice.ListenerSpec{
		Name: "x", Network: "tcp", Address: "127.0.0.1:0", Policy: coppice.Custom, Hooks: coppice.ListenerHooks{Picker: slotOne{}},
	})
	if _, ok := errors.AsType[*coppice.InvalidError](err); !ok {
		t.Errorf("functions at run time: %v", err)
	}
}

// TestFunctionsOfPolicy: the user's Picker and Key run in the listener process, which finds them by
// the Listener's path.
func TestFunctionsOfPolicy(t *testing.T) {
	p := startTree(t, "functions of a policy")
	for _, l := range p.Listeners() {
		home := ""
		for range 12 {
			s, err := answerOf(l.Addr.String())
			if err != nil {
				t.Fatal(err)
			}
			if home == "" {
				home = s
			}
			if s != home || l.Name == "picked" && s != "1" {
				t.Errorf("%s: answer of %q, before of %q", l.Name, s, home)
			}
		}
	}
	stats, err := p.ListenerStats(t.Context())
	if err != nil || len(stats) != 2 {
		t.Fatal(stats, err)
	}
	for _, l := range stats {
		if l.Stats.Counts.Faults != 0 {
			t.Errorf("%s: %+v", l.Name, l.Stats.Counts)
		}
	}
}

// TestLimitsAndModes: the limits and the mode of its path (X8) of a ListenerSpec in the tree are in
// effect.
func TestLimitsAndModes(t *testing.T) {
	t.Setenv("COPPICE_TEST_DIR", t.TempDir())
	p := startTree(t, "limits and modes")
	for _, l := range p.Listeners() {
		if l.Addr.Network() == "unix" {
			if fi, err := os.Stat(l.Addr.String()); err != nil || fi.Mode().Perm() != 0o707 {
				t.Errorf("%s: %v, %v", l.Name, fi.Mode(), err)
			}
			continue
		}
		for range 2 {
			c, err := net.Dial("tcp", l.Addr.String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			b := make([]byte, 2)
			if _, err := io.ReadFull(c, b); err != nil || string(b) != "in" {
				t.Fatalf("%q, %v", b, err)
			}
		}
		for range 3 {
			if s, err := answerOf(l.Addr.String()); s != "full" || err != nil {
				t.Errorf("answer %q, %v", s, err)
			}
		}
	}
}
