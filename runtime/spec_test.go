package coppice_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/supervisor"
)

// TestBadSpecs: everything that cannot be used is reported at once, by the path
// of the child and the name of the field, and nothing is started.
func TestBadSpecs(t *testing.T) {
	fn := func(context.Context, *coppice.Worker) error { return nil }
	ok := coppice.Pool{Name: "web", Worker: fn}
	for _, tt := range []struct {
		name  string
		cfg   coppice.Config
		wants []string
	}{
		{"nothing", coppice.Config{}, []string{"config: Children"}},
		{"negative size", coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: -1, Worker: fn}}}, []string{`child "web": Size -1`}},
		{"huge size", coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: 1 << 20, Worker: fn}}}, []string{`child "web": Size 1048576`}},
		{"autoscaling", coppice.Config{Children: []coppice.ChildSpec{
			coppice.Pool{Name: "a", Worker: fn, Autoscale: coppice.Autoscale{Min: 5, Max: 4, Wait: -1, Calm: -1}},
			coppice.Pool{Name: "b", Worker: fn, Autoscale: coppice.Autoscale{Calm: time.Second}},
			coppice.Pool{Name: "c", Worker: fn, Autoscale: coppice.Autoscale{Max: 5000}},
			coppice.Pool{Name: "d", Worker: fn, Size: 5, Autoscale: coppice.Autoscale{Min: 2, Max: 4}},
		}}, []string{
			`child "a": Autoscale.Wait -1ns`, `child "a": Autoscale.Calm -1ns`, `child "a": Autoscale.Min 5`, `child "b": Autoscale.Max 0`, `child "c": Autoscale.Max 5000`, `child "d": Size 5`,
		}},
		{"a canary", coppice.Config{Children: []coppice.ChildSpec{
			coppice.Pool{Name: "a", Worker: fn, Size: 2, Canary: coppice.Canary{Slots: 2, For: -1, Watch: -1, Requests: -2, Crashes: -1, Errors: 2, Slower: 0.5, Memory: -1}},
			coppice.Pool{Name: "b", Worker: fn, Canary: coppice.Canary{Watch: time.Hour}},
			coppice.Pool{Name: "c", Worker: fn, Size: 2, Canary: coppice.Canary{Slots: 1}, Liveness: coppice.Liveness{Every: coppice.None}},
		}}, []string{
			`child "a": Canary.Slots 2`, `child "a": Canary.For -1ns`, `child "a": Canary.Watch -1ns`, `child "a": Canary.Requests -2`, `child "a": Canary.Crashes -1`, `child "a": Canary.Errors 2`,
			`child "a": Canary.Slower 0.5`, `child "a": Canary.Memory -1`, `child "b": Canary.Slots 0`, `child "c": Canary.Slots 1: needs a heartbeat`,
		}},
		{"nil function", coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: "web"}}}, []string{`child "web": Worker`}},
		{"twice", coppice.Config{Children: []coppice.ChildSpec{ok, ok}}, []string{`child "web": Name "web": is the name of a sibling`}},
		{"no name", coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Worker: fn}}}, []string{`Children[0].Name`}},
		{"slash", coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: "a/b", Worker: fn}}}, []string{`child "a/b": Name`}},
		{"dollar", coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: "a$b", Worker: fn}}}, []string{`child "a$b": Name`}},
		{"long", coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: strings.Repeat("a", 65), Worker: fn}}}, []string{`Name`}},
		{"reserved", coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: "listeners", Worker: fn}}}, []string{`child "listeners": Name`}},
		{"nil child", coppice.Config{Children: []coppice.ChildSpec{nil}}, []string{`Children[0]`}},
		{"isolation", coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Worker: fn, Isolation: 7}}}, []string{`child "web": Isolation`}},
		{"negative times", coppice.Config{Shutdown: -1, Children: []coppice.ChildSpec{
			coppice.Pool{Name: "web", Worker: fn, StartTimeout: -time.Second, Shutdown: -time.Second},
		}}, []string{"config: Shutdown", `child "web": StartTimeout`, `child "web": Shutdown`}},
		{"no program", coppice.Config{Children: []coppice.ChildSpec{coppice.Process{Name: "p"}}}, []string{`child "p": Command`}},
		{"exit codes", coppice.Config{Children: []coppice.ChildSpec{
			coppice.Process{Name: "p", Command: []string{"true"}, SuccessExit: []int{3, 256}}, coppice.Pool{Name: "web", Worker: fn, SuccessExit: []int{-1}},
		}}, []string{`child "p": SuccessExit 256`, `child "web": SuccessExit -1`}},
		{"a program's fields", coppice.Config{Children: []coppice.ChildSpec{coppice.Process{
			Name: "p", Command: []string{"true"}, Stop: 99, Shutdown: -9, StartTimeout: -1,
			Ready: coppice.Ready{Notify: true, Line: "(", Network: "udp", Address: ":0", Alive: -1},
		}}}, []string{
			`child "p": Stop 99`, `child "p": Shutdown`, `child "p": StartTimeout`, "Ready [Notify Address Line Alive]", `Ready.Line "("`, `Ready.Network "udp"`, "Ready.Alive",
		}},
		{"a packet socket", coppice.Config{Children: []coppice.ChildSpec{coppice.ListenerSpec{
			Name: "dns", Network: "udp", Address: ":0", Policy: coppice.Custom, Backlog: 5, Limits: coppice.Limits{Total: 1},
			Peek: coppice.Peek{By: coppice.PeekSNI},
		}}}, []string{`child "dns": Policy custom`, `child "dns": Backlog 5`, `child "dns": Limits`, `child "dns": Peek`}},
		{"a datagram path", coppice.Config{Children: []coppice.ChildSpec{coppice.ListenerSpec{
			Name: "log", Network: "unixgram", Mode: 0o7777,
		}}}, []string{`child "log": Address`, `child "log": Mode`}},
		{"a program's port", coppice.Config{Children: []coppice.ChildSpec{coppice.Process{
			Name: "p", Command: []string{"true"}, Ready: coppice.Ready{Network: "tcp", Address: "localhost:0"},
		}}}, []string{`child "p": Ready.Address "localhost:0"`}},
		{"an environment", coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Worker: fn, Environment: coppice.Environment{
			Env: []string{"=1", "COPPICE_CHANNEL=3"}, MaxProcs: -2, MemoryLimit: -2, Nice: 20,
			Resources: coppice.Resources{MemoryMax: 5, MemoryHigh: 6, CPUQuota: -1, CPUWeight: 10001, TasksMax: -1}, Cgroup: "a",
			Rlimits: []coppice.Rlimit{{Name: "love"}, {Name: "core", Soft: 1}},
			Files:   []coppice.File{{Name: "a:b", FD: 3}, {Name: "a", FD: 3}, {Name: "a", Path: "x"}, {Name: "b", Path: "x", FD: 3}, {Name: "c", FD: 2}},
		}}}}, []string{
			`Env "=1"`, `Env "COPPICE_CHANNEL=3"`, "MaxProcs -2", "MemoryLimit -2", "Nice 20",
			"Resources.MemoryHigh 6: is above MemoryMax", "Resources.CPUQuota -1", "Resources.CPUWeight 10001", "Resources.TasksMax -1", "Environment.Cgroup a: stands beside", `Rlimits "love": is none of as, `, "Rlimits core: has a soft limit",
			`Files "a:b"`, "Files a: is there twice", "Files b: needs one of", "Files c: has an FD below 3",
		}},
		{"long strings", coppice.Config{Children: []coppice.ChildSpec{
			coppice.Pool{Name: "web", Worker: fn, Environment: coppice.Environment{Env: []string{"LONG=" + strings.Repeat("x", 1<<17)}}},
			coppice.Process{Name: "p", Command: []string{"true", strings.Repeat("x", 1<<17)}},
		}}, []string{`child "web": Environment.Env LONG: has 131077 bytes, more than 131071`, `child "p": Command[1] "xxx`, "has 131072 bytes, more than 131071"}},
		{"few descriptors", coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Worker: fn, Environment: coppice.Environment{
			Rlimits: []coppice.Rlimit{{Name: "nofile", Soft: 8, Hard: 19}},
		}}}}, []string{`child "web": Environment.Rlimits nofile 8:19: a worker takes 20 descriptors`}},
		{"an environment of goroutines", coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{
			Name: "web", Worker: fn, Isolation: coppice.GoroutineIsolation, Environment: coppice.Environment{Nice: 1},
		}}}, []string{`child "web": Environment of goroutines`}},
		{"what a pool may listen on", coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{
			Name: "web", Worker: fn, Listen: coppice.ListenRules{Allow: []coppice.ListenRule{{Network: "tcp", Ports: "80-"}}},
		}}}, []string{`child "web": Listen`, `Allow[0] Ports "80-"`}},
		{"a rollout that can replace no worker", coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{
			Name: "web", Worker: fn, Rollout: coppice.Rollout{Surge: coppice.None},
		}}}, []string{`child "web": Rollout.Surge None`}},
		{"negative values that are not None", coppice.Config{OrphanDrain: -2, Service: coppice.Service{SignalEcho: -2}, Children: []coppice.ChildSpec{coppice.Pool{
			Name: "web", Worker: fn, MaxParallelStarts: -1, Rollout: coppice.Rollout{Surge: -2}, Liveness: coppice.Liveness{Every: -time.Second, Abort: -1},
		}}}, []string{`config: OrphanDrain -2ns`, `config: Service.SignalEcho -2ns`, `child "web": Rollout.Surge -2`, `child "web": MaxParallelStarts -1`, `child "web": Liveness.Every -1s`, `child "web": Liveness.Abort -1ns`}},
		{"a program, and what is of workers", coppice.Config{Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "http", Network: "tcp", Address: ":0"},
			coppice.ListenerSpec{Name: "group", Network: "tcp", Address: ":0", Policy: coppice.ReusePort},
			coppice.ListenerSpec{Name: "a:b", Network: "tcp", Address: ":0", Policy: coppice.Shared},
			coppice.Pool{
				Name: "web", Command: []string{"true"}, Worker: fn, Function: "f", Prepare: fn, Isolation: coppice.GoroutineIsolation,
				Recycle: coppice.Recycle{Requests: 1}, Autoscale: coppice.Autoscale{Max: 2}, Listen: coppice.ListenRules{None: true}, Stop: -1, Spares: 1,
				Liveness:  coppice.Liveness{Path: "/", Timeout: time.Second, Check: func(context.Context, *coppice.Worker) error { return nil }},
				Listeners: []string{"http", "group", "a:b", "none", "none"},
			},
			coppice.Pool{Name: "no", Worker: fn, Listeners: []string{"http"}, Ready: coppice.Ready{Notify: true}, Stop: 1},
			coppice.Pool{Name: "empty", Command: []string{}},
			coppice.Process{Name: "p", Command: []string{"true"}, Listeners: []string{"group", "group"}},
		}}, []string{
			`child "web": Worker set: stands beside Command`, `"web": Function set`, `"web": Prepare set`, `"web": Isolation set: is of a worker function`,
			`"web": Recycle.Requests set`, `"web": Liveness.Path set`, `"web": Liveness.Check set`, `"web": Liveness.Timeout set: needs Ready.Notify`,
			`"web": Autoscale set`, `"web": Listen set`, `"web": Stop -1`, `"web": Listeners "http": has Policy`, `"web": Spares 1: stands beside the listener "group"`,
			`"web": Listeners "a:b": has a colon`, `"web": Listeners "none": is the name of no ListenerSpec`,
			`"no": Listeners set: is for a Command`, `"no": Ready set`, `"no": Stop set`, `"empty": Command []: names no program`,
			`"p": Listeners "group": has Policy ReusePort`, `"p": Listeners "group": is there twice`,
		}},
		{"nil run", coppice.Config{Children: []coppice.ChildSpec{coppice.Func{Name: "f"}}}, []string{`child "f": Run`}},
		{"actor's bound", coppice.Config{Children: []coppice.ChildSpec{coppice.Actor{Name: "a", New: func() actor.Actor { return nil }, Bound: -1}}}, []string{`child "a": Bound -1`}},
		{"nil actor", coppice.Config{Children: []coppice.ChildSpec{coppice.Actor{Name: "a"}}}, []string{`child "a": New`}},
		{"below", coppice.Config{Children: []coppice.ChildSpec{coppice.Supervisor{Name: "s", Children: []coppice.ChildSpec{
			coppice.Pool{Name: "web", Size: -2, Worker: fn}, coppice.Supervisor{Name: "many", Strategy: supervisor.Dynamic},
		}}}}, []string{`child "s/web": Size -2`, `child "s/many": Strategy dynamic: is of package supervisor alone`}},
		{"network", coppice.Config{Children: []coppice.ChildSpec{coppice.ListenerSpec{Name: "l", Network: "ipx", Address: ":1"}}}, []string{`child "l": Network "ipx"`}},
		{"address", coppice.Config{Children: []coppice.ChildSpec{coppice.ListenerSpec{Name: "l", Network: "tcp", Address: "nowhere"}}}, []string{`child "l": Address "nowhere"`}},
		{"policy", coppice.Config{Children: []coppice.ChildSpec{coppice.ListenerSpec{Name: "l", Network: "tcp", Address: ":0", Policy: 99}}}, []string{`child "l": Policy`}},
		{"descriptor and address", coppice.Config{Children: []coppice.ChildSpec{coppice.ListenerSpec{Name: "l", Network: "tcp", Address: ":0", FD: 7}}}, []string{`child "l": FD 7`}},
		{"negative descriptor", coppice.Config{Children: []coppice.ChildSpec{coppice.ListenerSpec{Name: "l", FD: -7}}}, []string{`child "l": FD -7`}},
		{"peek of another policy", coppice.Config{Children: []coppice.ChildSpec{coppice.ListenerSpec{
			Name: "l", Network: "tcp", Address: ":0", Peek: coppice.Peek{By: coppice.PeekSNI},
		}}}, []string{`child "l": Peek {By:sni`}},
		{"peek of no bytes, function for nothing", coppice.Config{Children: []coppice.ChildSpec{coppice.ListenerSpec{
			Name: "l", Network: "tcp", Address: ":0", Policy: coppice.Hash, Peek: coppice.Peek{By: coppice.PeekBytes}, Hooks: coppice.ListenerHooks{First: func([]byte) (uint64, coppice.PeekVerdict) { return 0, coppice.PeekMore }},
		}}}, []string{`child "l": Peek {By:bytes`, `child "l": Hooks.First`}},
		{"options", coppice.Config{Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "l", Network: "tcp", Address: ":0", Options: coppice.SocketOptions{KeepAliveCount: 1000}},
			coppice.ListenerSpec{Name: "u", Network: "unix", Address: "/x", Options: coppice.SocketOptions{Delay: true}},
			coppice.ListenerSpec{Name: "f", FD: 7, Options: coppice.SocketOptions{FreeBind: true}},
		}}, []string{`child "l": Options`, "KeepAliveCount is not between", `child "u": Options`, `child "f": Options`}},
		{"strategy", coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Worker: fn, Strategy: 9}}}, []string{`child "web": Strategy`}},
		{"restart", coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Worker: fn, Restart: 9}}}, []string{`child "web": Restart`}},
		{"intensity", coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Worker: fn, Intensity: struct {
			Max    int
			Period time.Duration
		}{-1, time.Second}}}}, []string{`child "web": Intensity`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rt, err := coppice.Start(t.Context(), tt.cfg)
			if err == nil {
				_ = rt.Shutdown(t.Context())
				t.Fatal("it started")
			}
			if _, ok := errors.AsType[*coppice.InvalidError](err); !ok {
				t.Errorf("%v is not an *InvalidError", err)
			}
			for _, want := range tt.wants {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

// TestWithoutMaster: a worker function runs without a tree in a unit test.
func TestWithoutMaster(t *testing.T) {
	var w coppice.Worker
	ctx, cancel := context.WithCancel(t.Context())
	ln, err := w.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- w.Serve(ctx, ln, name(&w)) }()
	if answer := get(t, ln.Addr().String()); answer != "0" {
		t.Errorf("answer %q", answer)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("still listening")
	}
	if _, err := w.ListenSpec(t.Context(), coppice.ListenerSpec{FD: 7}); !errors.Is(err, coppice.ErrUnsupported) {
		t.Errorf("FD without a master: %v", err)
	}
	if _, err := w.Listener(t.Context(), "http"); !errors.Is(err, coppice.ErrUnsupported) {
		t.Errorf("a name without a master: %v", err)
	}
	if _, err := w.AwaitPacketConn(t.Context(), ""); !isInvalid(err, "Name") {
		t.Errorf("no name: %v", err)
	}
	if _, err := w.ListenSpec(t.Context(), coppice.ListenerSpec{Name: "http"}); !isInvalid(err, "Network") {
		t.Errorf("a spec with a name alone: %v", err)
	}
	if _, err := w.Listen("tcp", "nowhere"); err == nil {
		t.Error("listens nowhere")
	}
}

// isInvalid reports whether err names that field of a spec.
func isInvalid(err error, field string) bool {
	inv, ok := errors.AsType[*coppice.InvalidError](err)
	return ok && inv.Field == field
}
