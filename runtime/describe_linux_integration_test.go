//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/supervisor"
)

// TestDescribe: each field that is set has one line, whatever its type; functions, pointers and
// secrets are not shown, and nothing is called.
func TestDescribe(t *testing.T) {
	called := func() { t.Error("Describe calls a function of the tree") }
	text, err := coppice.Describe(coppice.Config{
		OrphanDrain: coppice.None, Output: io.Discard, Load: func(context.Context) ([]byte, error) { called(); return nil, nil },
		Children: []coppice.ChildSpec{
			coppice.Supervisor{Name: "group", Strategy: supervisor.RestForOne, Children: []coppice.ChildSpec{
				coppice.ListenerSpec{
					Name: "front", Network: "tcp", Address: ":8000", Policy: coppice.Custom, Hooks: coppice.ListenerHooks{Picker: slotOne{}},
				},
				coppice.Pool{
					Name: "Pool", Worker: idle, Shutdown: supervisor.BrutalKill, SuccessExit: []int{3}, Liveness: coppice.Liveness{Every: coppice.None},
					Listen:      coppice.ListenRules{Allow: []coppice.ListenRule{{Network: "tcp", Ports: "80"}}},
					Environment: coppice.Environment{Env: []string{"KEY=sesame", "GONE"}, Files: []coppice.File{{Name: "log", Path: "/tmp/log", Append: true}}},
				},
			}},
			coppice.Actor{Name: "cache", New: func() actor.Actor { called(); return nil }},
			coppice.Process{Name: "db", Command: []string{"db", "-v"}, Shutdown: supervisor.Infinity},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	spec, defaults, _ := strings.Cut(text, "default ")
	const want = `Config.Load func
Config.Shutdown 30s
Config.OrphanDrain None
Config.Output io.discard
Config.MaxLine 65536
Config.Logger *slog.Logger
group Supervisor
group.Strategy rest_for_one
group/front ListenerSpec
group/front.Network tcp
group/front.Address :8000
group/front.Policy custom
group/front.Hooks.Picker coppice_test.slotOne
group/Pool Pool
group/Pool.Worker func
group/Pool.Liveness.Every None
group/Pool.Environment.Env.KEY set
group/Pool.Environment.Env.GONE removed
group/Pool.Environment.Files [log=/tmp/log+]
group/Pool.Listen.Allow [{Network:tcp Address: Ports:80 FD:0}]
group/Pool.Shutdown BrutalKill
group/Pool.SuccessExit [3]
cache Actor
cache.New func
db Process
db.Command [db -v]
db.Shutdown Infinity
`
	if spec != want {
		t.Errorf("got\n%s\nwant\n%s", spec, want)
	}
	for _, kind := range []string{"Actor", "Pool", "Process", "Supervisor"} {
		if !strings.Contains("default "+defaults, "default "+kind+".") {
			t.Errorf("no defaults of %s in\n%s", kind, defaults)
		}
	}
	_, err = coppice.Describe(coppice.Config{OrphanDrain: -time.Second})
	if _, ok := errors.AsType[*coppice.InvalidError](err); !ok {
		t.Errorf("%v", err)
	}
}

// TestDescribeRunning: the tree that runs differs from its spec by what has changed, line by line.
func TestDescribeRunning(t *testing.T) {
	setOrder("")
	guard(t)
	p := startTree(t, "operated")
	before := strings.Split(p.Describe(), "\n")
	err := errors.Join(
		p.Scale(t.Context(), "job", 2), p.Scale(t.Context(), "web", 3), p.Scale(t.Context(), "web", 2),
		p.StartChild(t.Context(), "", coppice.Pool{Name: "late", Size: 1, Function: "obedient", Environment: coppice.Environment{Env: []string{"KEY=sesame"}}}),
		p.TerminateChild(t.Context(), "once"), // it is temporary
		p.TerminateChild(t.Context(), "clock"), p.DeleteChild(t.Context(), "clock"),
	)
	if err != nil {
		t.Fatal(err)
	}
	now := strings.Split(p.Describe(), "\n")
	missing := func(from, in []string) (lines []string) {
		for _, l := range from {
			if !slices.Contains(in, l) {
				lines = append(lines, l)
			}
		}
		return lines
	}
	if got, want := missing(now, before), []string{
		"job.Size 2", "late Pool", "late.Size 1", "late.Function obedient", "late.Environment.Env.KEY set",
	}; !slices.Equal(got, want) {
		t.Errorf("more: %q, want %q", got, want)
	}
	if got, want := missing(before, now), []string{
		"job.Size 1", "once Process", "once.Command [sleep 1000]", "once.Restart temporary", "clock Func", "clock.Run func", "default Func.Shutdown 5s",
	}; !slices.Equal(got, want) {
		t.Errorf("less: %q, want %q", got, want)
	}
}
