package main

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// TestStorm: workers and the listener process are killed, or stopped and continued, at random while
// clients connect. No client is refused, none hangs; what is cut was in the hands of a process that
// was killed.
func TestStorm(t *testing.T) {
	blows, between := 15, time.Millisecond
	if soak {
		blows, between = 200, 150*time.Millisecond // within the restart budgets; some 100,000 connections
	}
	for _, policy := range []string{"round-robin", "least-loaded", "hash", "shared", "reuseport"} {
		t.Run(policy, func(t *testing.T) {
			if _, err := coppice.ParsePolicy(policy); err != nil {
				t.Skip(err)
			}
			h := start(t, "-workers", "3", "-quiet", "-policy", policy)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			counts := make(chan runtimetest.Counts)
			load := runtimetest.Load{URL: h.url, InFlight: 16}
			go func() { counts <- load.Run(ctx) }()
			rnd := rand.New(rand.NewPCG(5, 6))
			killed, listeners, stopped := 0, 0, 0
			for tick := time.NewTicker(between); killed+listeners+stopped < blows; <-tick.C {
				var procs []coppice.Tree
				runtimetest.Eventually(t, "an answer that was not cut, with processes that run", func() bool {
					procs = h.processes()
					return len(procs) > 0
				})
				p := procs[rnd.IntN(len(procs))]
				if rnd.IntN(4) == 0 {
					runtimetest.Freeze(t, p.PID)
					signal(t, p.PID, syscall.SIGCONT)
					stopped++
					continue
				}
				signal(t, p.PID, syscall.SIGKILL)
				runtimetest.Eventually(t, "its end", func() bool { return !runtimetest.Alive(p.PID) })
				if p.Role == "listener" {
					listeners++
				} else {
					killed++
				}
			}
			cancel()
			c := <-counts
			t.Logf("%s: %d workers and %d listener processes killed, %d stopped and continued; %v", policy, killed, listeners, stopped, c)
			if c.Refused != 0 || c.Hung != 0 || c.Other != 0 || c.OK == 0 {
				t.Errorf("refused %d, hung %d, other %d: want none", c.Refused, c.Hung, c.Other)
			}
			if c.Cut > int64((killed+listeners)*load.InFlight) {
				t.Errorf("%d cut by %d kills with %d in flight", c.Cut, killed+listeners, load.InFlight)
			}
		})
	}
}

// processes are the workers and the listener process that run now.
func (h *hello) processes() (all []coppice.Tree) {
	h.t.Helper()
	body, err := h.get("/tree")
	if err != nil {
		return nil
	}
	var tree coppice.Tree
	if err := json.Unmarshal([]byte(body), &tree); err != nil {
		h.t.Fatal(err)
	}
	tree.Walk(func(n coppice.Tree) {
		if (n.Role == "worker" || n.Role == "listener") && n.State == "running" && n.PID != 0 && runtimetest.Alive(n.PID) {
			all = append(all, n)
		}
	})
	return all
}

func signal(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatalf("%v to %d: %v", sig, pid, err)
	}
}
