package hosts_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/hoststest"
)

// crew is a singleton on three hosts, and what has come of it.
type crew struct {
	mu     sync.Mutex
	runs   []string // the hosts on which it has begun
	acting int
	most   int
	fences []uint64
	ends   chan error
}

func (c *crew) begin(host string, f hosts.Fence) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs = append(c.runs, host)
	c.fences = append(c.fences, f.Number)
	c.acting++
	c.most = max(c.most, c.acting)
}

func (c *crew) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acting--
}

// now returns the hosts on which it has begun, and how many act.
func (c *crew) now() ([]string, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.runs), c.acting
}

// start runs a singleton on hosts a, b, c; work is what it does.
func start(t *testing.T, ctx context.Context, m *hoststest.Memory, work func(ctx context.Context, host string) error) *crew {
	t.Helper()
	c := &crew{ends: make(chan error, 3)}
	for _, host := range []string{"a", "b", "c"} {
		n := join(t, m, hosts.NamesConfig{Host: host})
		go func() {
			c.ends <- n.RunSingleton(ctx, hosts.Singleton{Name: "billing", Run: func(ctx context.Context) error {
				f, _ := hosts.FenceOf(ctx)
				c.begin(host, f)
				defer c.end()
				return work(ctx, host)
			}})
		}()
	}
	return c
}

// TestSingleton: one host at a time runs it, under rising fences; it moves when its host is cut
// off, and stops with its caller.
func TestSingleton(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := hoststest.NewMemory()
		ctx, cancel := context.WithCancel(t.Context())
		c := start(t, ctx, m, func(ctx context.Context, _ string) error {
			<-ctx.Done()
			time.Sleep(300 * time.Millisecond) // it takes its time, within the margin
			return ctx.Err()
		})
		for round := range 5 {
			time.Sleep(20 * time.Second)
			runs, acting := c.now()
			if len(runs) != round+1 || acting != 1 {
				t.Fatalf("round %d: run on %v, %d now", round, runs, acting)
			}
			host := runs[round]
			m.Cut(host, true)
			time.AfterFunc(10*time.Second, func() { m.Cut(host, false) })
		}
		time.Sleep(20 * time.Second)
		cancel()
		for range 3 {
			if err := <-c.ends; err != nil {
				t.Error(err)
			}
		}
		for i := range c.fences[1:] {
			if c.fences[i+1] <= c.fences[i] {
				t.Errorf("fences %v", c.fences)
			}
		}
		if c.most != 1 || c.acting != 0 {
			t.Errorf("%d at once; %d are left", c.most, c.acting)
		}
		synctest.Wait()
		for _, e := range m.Entries() {
			if e.Key == "coppice/shop/names/billing" {
				t.Error("the name is still held")
			}
		}
	})
}

// TestSingletonGivesUp: failures on different hosts use up the budget of the cluster, then every
// host gives up; a start that comes later begins anew.
func TestSingletonGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := hoststest.NewMemory()
		broken := errors.New("no ledger")
		work := func(context.Context, string) error { return broken }
		c := start(t, t.Context(), m, work)
		failed := 0
		for range 3 {
			err := <-c.ends
			if !errors.Is(err, hosts.ErrGivenUp) {
				t.Error(err)
			}
			if errors.Is(err, broken) {
				failed++
			}
		}
		if got := fmt.Sprint(len(c.runs)); got != "3" || failed != 3 {
			t.Errorf("run on %v; %d hosts tell of their failure", c.runs, failed)
		}
		seen := make(map[string]bool)
		for _, host := range c.runs {
			seen[host] = true
		}
		if len(seen) != 3 {
			t.Errorf("run on %v, though another host is to try", c.runs)
		}
		n := join(t, m, hosts.NamesConfig{Host: "d"})
		if err := n.RunSingleton(t.Context(), hosts.Singleton{Name: "billing", Run: func(ctx context.Context) error { return nil }}); !errors.Is(err, hosts.ErrGivenUp) {
			t.Errorf("a start soon after: %v", err)
		}
		time.Sleep(2 * time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		err := n.RunSingleton(ctx, hosts.Singleton{Name: "billing", Run: func(ctx context.Context) error {
			cancel()
			<-ctx.Done()
			return nil
		}})
		if err != nil {
			t.Errorf("a start later: %v", err)
		}
	})
}

// TestSingletonPanics: a panic counts in the budget of the cluster as any failure does, and the
// error has its stack.
func TestSingletonPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, t.Context(), hoststest.NewMemory(), func(context.Context, string) error { panic("broken") })
		for range 3 {
			err := <-c.ends
			if !errors.Is(err, hosts.ErrGivenUp) || !strings.Contains(err.Error(), "panic: broken") || !strings.Contains(err.Error(), "TestSingletonPanics") {
				t.Error(err)
			}
		}
		if len(c.runs) != 3 {
			t.Errorf("run on %v", c.runs)
		}
	})
}

// TestSingletonKilled: what has not stopped when the name can be another's is killed, before
// another runs; what stops within the margin is not.
func TestSingletonKilled(t *testing.T) {
	for _, obeys := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			m := hoststest.NewMemory()
			a, b := join(t, m, hosts.NamesConfig{Host: "a"}), join(t, m, hosts.NamesConfig{Host: "b"})
			ctx, cancel := context.WithCancel(t.Context())
			killed, ended := make(chan struct{}), make(chan error, 2)
			running := make(chan struct{})
			s := hosts.Singleton{Name: "billing", Run: func(ctx context.Context) error {
				close(running)
				<-ctx.Done()
				if obeys {
					time.Sleep(400 * time.Millisecond) // within the margin
				} else {
					<-killed
				}
				return ctx.Err()
			}}
			go func() { ended <- a.RunSingleton(ctx, s.WithKill(func() { close(killed) })) }()
			<-running
			other := make(chan bool, 1)
			go func() {
				ended <- b.RunSingleton(ctx, hosts.Singleton{Name: "billing", Run: func(ctx context.Context) error {
					select {
					case <-killed:
						other <- true
					default:
						other <- false
					}
					<-ctx.Done()
					return nil
				}})
			}()
			m.Cut("a", true)
			if was := <-other; was == obeys {
				t.Errorf("obeys: %v; killed before the other runs: %v", obeys, was)
			}
			m.Cut("a", false)
			cancel()
			for range 2 {
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestKilledAtOnce: what has not been told in time that its name is lost, as its process was
// stopped, has no further time to stop when it goes on; nor has what runs when its session is ended
// without being waited for.
func TestKilledAtOnce(t *testing.T) {
	for name, end := range map[string]func(m *hoststest.Memory, n *hosts.Names){
		"stopped": func(m *hoststest.Memory, n *hosts.Names) {
			release := make(chan struct{})
			n.BlockLoop(release)
			m.Cut("a", true)
			time.Sleep(20 * time.Second)
			close(release)
		},
		"ended": func(_ *hoststest.Memory, n *hosts.Names) { n.Abort() },
	} {
		for range 10 { // it hears of both in any order
			synctest.Test(t, func(t *testing.T) {
				m := hoststest.NewMemory()
				e, err := m.Open("a")
				if err != nil {
					t.Fatal(err)
				}
				n, err := hosts.NewNamesWithoutWatchdog(e, hosts.NamesConfig{Cluster: "shop", Host: "a"})
				if err != nil {
					t.Fatal(err)
				}
				running, killed, ended := make(chan struct{}), make(chan time.Time, 1), make(chan error, 1)
				ctx, cancel := context.WithCancel(t.Context())
				s := hosts.Singleton{Name: "billing", Run: func(context.Context) error {
					close(running)
					<-killed
					return nil
				}}
				go func() { ended <- n.RunSingleton(ctx, s.WithKill(func() { killed <- time.Now() })) }()
				<-running
				end(m, n)
				at := time.Now()
				cancel()
				if err := <-ended; err != nil && !errors.Is(err, hosts.ErrNamesClosed) {
					t.Error(err)
				}
				took := time.Since(at)
				if name == "stopped" && took != 0 || took > 500*time.Millisecond {
					t.Errorf("%s: it runs %v longer", name, took)
				}
				n.Abort()
			})
		}
	}
}

// TestSingletonOfBadSpec: what cannot be used is refused.
func TestSingletonOfBadSpec(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := join(t, hoststest.NewMemory(), hosts.NamesConfig{Host: "a"})
		run := func(context.Context) error { return nil }
		for _, s := range []hosts.Singleton{
			{Run: run},
			{Name: "a/b", Run: run},
			{Name: "a"},
			{Name: "a", Run: run, Max: 1},
			{Name: "a", Run: run, Period: time.Minute},
			{Name: "a", Run: run, Max: 1, Period: time.Millisecond},
		} {
			if err := n.RunSingleton(t.Context(), s); err == nil {
				t.Errorf("%+v was taken", s)
			}
		}
	})
}
