//go:build linux

package hosts_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

const groupVar = "COPPICE_TEST_GROUP" // set: the program is one of three with a group

// groupProgram is a host with two workers, each a member that asks the members for keys all the
// time, and prints who has which when that changes.
func groupProgram() {
	name, network := os.Getenv(hostVar), os.Getenv(netVar)
	peers := hosts.Static{}
	for i, host := range []string{"a", "b", "c"} {
		peers[host] = fmt.Sprint(network, ".", i+1, ":7400")
	}
	coppice.Main(coppice.Config{
		Hosts: &hosts.Config{Cluster: "shop", Name: name, Listen: peers[name], Peers: peers},
		Children: []coppice.ChildSpec{
			coppice.Pool{Name: "web", Size: 2, Worker: func(ctx context.Context, w *coppice.Worker) error { return groupMember(ctx, w, name) }},
			coppice.Func{Name: "told", Run: func(ctx context.Context) error { return tellPIDs(ctx, coppice.Running()) }},
		},
	})
}

func groupMember(ctx context.Context, w *coppice.Worker, host string) error {
	s := w.System()
	g, err := hosts.NewGroup(ctx, s, "cache")
	if err != nil {
		return err
	}
	pid, err := s.Spawn(ctx, "cache", func() actor.Actor {
		return actor.ReceiveFunc(func(c actor.Context) {
			if key, ok := c.Message().(string); ok {
				c.Respond(host + "/" + w.Name() + " " + key)
			}
		})
	})
	if err != nil {
		return err
	}
	if err := g.Join(ctx, w.Name(), pid); err != nil {
		return err
	}
	if err := w.Ready(); err != nil {
		return err
	}
	for said := ""; ctx.Err() == nil; time.Sleep(time.Millisecond) {
		n, all, whole := len(g.Members()), fnv.New32(), true
		for i := range 50 {
			key := fmt.Sprint("key-", i)
			to, err := g.Pick(key)
			if err != nil {
				fmt.Println("odd pick:", err)
				continue
			}
			limit, cancel := context.WithTimeout(ctx, patience)
			answer, err := actors.Ask[string](limit, s, to, key)
			cancel()
			who, of, _ := strings.Cut(answer, " ")
			switch {
			case err == nil && of == key:
				fmt.Fprintln(all, who)
			case errors.Is(err, actors.ErrDown), errors.Is(err, actors.ErrUnreachable), errors.Is(err, actors.ErrNoActor), errors.Is(err, actors.ErrLane), ctx.Err() != nil:
				whole = false
			default:
				fmt.Println("odd answer:", answer, err)
			}
		}
		if now := fmt.Sprintf("of %d: %x", n, all.Sum32()); whole && now != said && n == len(g.Members()) {
			said = now
			fmt.Println("keys", now)
		}
	}
	return nil
}

// TestGroupPrograms: three programs, each of whose workers asks the members of a group for keys.
// When a worker or a whole program is killed, each ask ends, all agree on the same other members,
// and when it is back on the same as before.
func TestGroupPrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three programs")
	}
	network := fmt.Sprintf("127.%d.%d", 1+os.Getpid()%200, 1+os.Getpid()/200%200)
	programs := make(map[string]*runtimetest.Program)
	start := func(host string) {
		programs[host] = runtimetest.Start(t, []string{groupVar + "=1", netVar + "=" + network, hostVar + "=" + host, "COPPICE_CONTROL=off"})
	}
	for _, host := range []string{"a", "b", "c"} {
		start(host)
	}
	// agreed waits until all workers of these hosts say the same of a number of members, and
	// returns what.
	agreed := func(n int, at ...string) (digest string) {
		t.Helper()
		runtimetest.Eventually(t, fmt.Sprint("the workers of ", at, " agree about ", n), func() bool {
			digest = ""
			for _, host := range at {
				last := make(map[string]string) // by worker
				for _, line := range programs[host].Lines() {
					if who, what, ok := strings.Cut(line, "keys of "); ok {
						who, _, _ = strings.Cut(who, "#")
						last[who] = what
					}
				}
				for _, what := range last {
					of, d, _ := strings.Cut(what, ": ")
					if of != fmt.Sprint(n) || digest != "" && d != digest {
						return false
					}
					digest = d
				}
				if len(last) != 2 {
					return false
				}
			}
			return true
		})
		return digest
	}
	before := agreed(6, "a", "b", "c")
	signal(t, programs["b"], "web/0", syscall.SIGKILL)
	runtimetest.Eventually(t, "another web/0 of b sees all", func() bool {
		seen := make(map[string]bool)
		for _, line := range programs["b"].Lines() {
			if who, _, ok := strings.Cut(line, " g1| keys of 6"); ok && strings.HasPrefix(who, "web/0#") {
				seen[who] = true
			}
		}
		return len(seen) == 2
	})
	if after := agreed(6, "a", "b", "c"); after != before {
		t.Errorf("after a worker has been replaced: %s, before %s", after, before)
	}
	programs["c"].Signal(syscall.SIGKILL)
	programs["c"].Wait()
	if fewer := agreed(4, "a", "b"); fewer == before {
		t.Error("the keys of a host that is dead have no member")
	}
	start("c")
	if after := agreed(6, "a", "b", "c"); after != before {
		t.Errorf("after a host has come back: %s, before %s", after, before)
	}
	for host, p := range programs {
		for _, line := range p.Lines() {
			if strings.Contains(line, "odd ") {
				t.Errorf("%s: %s", host, line)
			}
		}
	}
}
