package hosts_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/hoststest"
)

// join has a host begin a session, and end it with the test.
func join(t *testing.T, m *hoststest.Memory, cfg hosts.NamesConfig) *hosts.Names {
	t.Helper()
	e, err := m.Open(cfg.Host)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Cluster = "shop"
	n, err := hosts.NewNamesByTime(e, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		over, cancel := context.WithCancel(context.Background())
		cancel()
		_ = n.Close(over)
		_ = e.Close()
	})
	return n
}

func live(t *testing.T, n *hosts.Names) {
	t.Helper()
	if err := n.WaitLive(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func register(t *testing.T, n *hosts.Names, name, value string) *hosts.Holding {
	t.Helper()
	h, err := n.Register(t.Context(), name, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func release(t *testing.T, h *hosts.Holding) {
	t.Helper()
	if err := h.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// eventually registers a name as soon as it is free.
func eventually(t *testing.T, n *hosts.Names, name string) *hosts.Holding {
	t.Helper()
	for {
		h, err := n.Register(t.Context(), name, nil)
		if err == nil {
			return h
		}
		if !errors.Is(err, actors.ErrNameTaken) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // virtual
	}
}

// TestNames: one host holds a name; others are refused, and look it up; it is given back.
func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := hoststest.NewMemory()
		a, b := join(t, m, hosts.NamesConfig{Host: "a", Boot: "boot-a"}), join(t, m, hosts.NamesConfig{Host: "b"})
		first := register(t, a, "billing", "here")
		if f, ok := hosts.FenceOf(first.Context()); !ok || f != first.Fence() || f.Name != "billing" || f.Number == 0 {
			t.Errorf("fence of the context: %v %v, want %v", f, ok, first.Fence())
		}
		for _, n := range []*hosts.Names{a, b} {
			live(t, n)
			if _, err := n.Register(t.Context(), "billing", nil); !errors.Is(err, actors.ErrNameTaken) {
				t.Errorf("register of a name that is held: %v", err)
			}
			synctest.Wait()
			h, err := n.Lookup("billing")
			if err != nil || h.Fence != first.Fence() || h.Host != "a" || h.Boot != "boot-a" || string(h.Value) != "here" {
				t.Errorf("look up: %+v, %v", h, err)
			}
		}
		release(t, first)
		release(t, first)
		if !errors.Is(context.Cause(first.Context()), hosts.ErrReleased) {
			t.Errorf("cause after the release: %v", context.Cause(first.Context()))
		}
		synctest.Wait()
		if _, err := b.Lookup("billing"); !errors.Is(err, actors.ErrNoActor) {
			t.Errorf("look up of a name that was given back: %v", err)
		}
		second := register(t, b, "billing", "")
		if second.Fence().Number <= first.Fence().Number {
			t.Errorf("fence %d after %d", second.Fence().Number, first.Fence().Number)
		}
	})
}

// TestCutOff: a holder that does not reach the engine has its context ended Margin before another
// can hold the name, however the calls of its renewal end, and though the engine has had the lease
// last longer.
func TestCutOff(t *testing.T) {
	for name, cut := range map[string]func(m *hoststest.Memory){
		"isolated":      func(m *hoststest.Memory) { m.Cut("a", true) },
		"answers lost":  func(m *hoststest.Memory) { m.SetFault(faultOf("Renew", hoststest.LoseAnswer)) },
		"renewals lost": func(m *hoststest.Memory) { m.SetFault(faultOf("Renew", hoststest.LoseRequest)) },
		"answers late":  func(m *hoststest.Memory) { m.SetFault(faultOf("Renew", hoststest.AnswerLate)) },
		"renewals late": func(m *hoststest.Memory) { m.SetFault(faultOf("Renew", hoststest.DoLate)) },
		"a leader change": func(m *hoststest.Memory) {
			m.Cut("a", true)
			time.AfterFunc(4*time.Second, m.Extend)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := hoststest.NewMemory()
				a, b := join(t, m, hosts.NamesConfig{Host: "a"}), join(t, m, hosts.NamesConfig{Host: "b"})
				held := register(t, a, "billing", "")
				time.Sleep(7 * time.Second) // virtual, as all in this file
				if held.Context().Err() != nil {
					t.Fatal("lost with an engine that answers")
				}
				cut(m)
				at := time.Now()
				if name == "answers late" {
					for n := m.Calls("a", "Renew"); m.Calls("a", "Renew") == n; {
						time.Sleep(10 * time.Millisecond)
					}
					time.Sleep(hoststest.AnswerDelay + 10*time.Millisecond)
					m.Cut("a", true)
				}
				ends := make(chan time.Time, 1)
				stop := context.AfterFunc(held.Context(), func() {
					ends <- time.Now()
					if strings.HasPrefix(name, "renewals") || name == "answers lost" {
						_ = held.Release(t.Context()) // at once, as nothing runs
					}
				})
				defer stop()
				next := eventually(t, b, "billing")
				won := time.Now()
				var ended time.Time
				select {
				case ended = <-ends:
				default:
				}
				if !errors.Is(context.Cause(held.Context()), hosts.ErrLost) || ended.IsZero() || won.Before(ended) {
					t.Errorf("%v, ended %v after the cut; another holds it after %v", context.Cause(held.Context()), ended.Sub(at), won.Sub(at))
				}
				if took := ended.Sub(at); took > 4500*time.Millisecond && name != "answers late" {
					t.Errorf("told to stop %v after the cut", took)
				}
				if name == "isolated" && won.Sub(ended) < 500*time.Millisecond {
					t.Errorf("%v between the end here and the beginning there, less than the margin", won.Sub(ended))
				}
				if next.Fence().Number <= held.Fence().Number {
					t.Errorf("fence %d after %d", next.Fence().Number, held.Fence().Number)
				}
				if _, err := a.Lookup("other"); name == "isolated" && !errors.Is(err, hosts.ErrUnavailable) {
					t.Errorf("look up while cut off: %v", err)
				}
				m.Cut("a", false)
				m.SetFault(nil)
				live(t, a)
				synctest.Wait()
				if h, err := a.Lookup("billing"); err != nil || h.Host != "b" {
					t.Errorf("look up when it is back: %+v, %v", h, err)
				}
			})
		})
	}
}

// faultOf is a fault of host a's calls of one kind.
func faultOf(call string, f hoststest.Fault) func(string, string) hoststest.Fault {
	return func(h, c string) hoststest.Fault {
		if h == "a" && c == call {
			return f
		}
		return hoststest.Deliver
	}
}

// TestWatchdogAlone: what is held ends in time though the loop that renews hangs: the watchdog is a
// timer of its own.
func TestWatchdogAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := hoststest.NewMemory()
		a := join(t, m, hosts.NamesConfig{Host: "a"})
		held := register(t, a, "billing", "")
		at := time.Now()
		release := make(chan struct{})
		a.BlockLoop(release)
		<-held.Context().Done()
		if took := time.Since(at); took > 4500*time.Millisecond || !errors.Is(context.Cause(held.Context()), hosts.ErrLost) {
			t.Errorf("ended after %v: %v", took, context.Cause(held.Context()))
		}
		close(release)
	})
}

// TestClaimInDoubt: a claim whose answer is lost is made again, and is one; what a caller who has
// gone has left is deleted, also when it comes to be late, and by no other's.
func TestClaimInDoubt(t *testing.T) {
	commits := func(f hoststest.Fault, n int32) func(string, string) hoststest.Fault {
		var left atomic.Int32
		left.Store(n)
		return func(host, call string) hoststest.Fault {
			if host == "a" && call == "Commit" && left.Add(-1) >= 0 {
				return f
			}
			return hoststest.Deliver
		}
	}
	for _, fault := range []hoststest.Fault{hoststest.LoseAnswer, hoststest.LoseRequest, hoststest.DoLate} {
		t.Run(fmt.Sprint(fault), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := hoststest.NewMemory()
				a, b := join(t, m, hosts.NamesConfig{Host: "a"}), join(t, m, hosts.NamesConfig{Host: "b"})
				live(t, a)
				m.SetFault(commits(fault, 2))
				h := register(t, a, "billing", "")
				if _, err := b.Register(t.Context(), "billing", nil); !errors.Is(err, actors.ErrNameTaken) {
					t.Errorf("register of a name that is held: %v", err)
				}
				synctest.Wait()
				if got, err := b.Lookup("billing"); err != nil || got.Fence != h.Fence() {
					t.Errorf("look up: %+v, %v, want %v", got, err, h.Fence())
				}
				release(t, h)

				m.SetFault(commits(fault, 1))
				hasty, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := a.Register(hasty, "billing", nil)
				if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, hosts.ErrUnavailable) {
					t.Errorf("register in doubt: %v", err)
				}
				time.Sleep(2 * time.Second)
				next := register(t, b, "billing", "") // free again, though the session of a lives
				if live(t, a); next.Context().Err() != nil {
					t.Error("the next holder has lost it")
				}
				time.Sleep(20 * time.Second)
				if next.Context().Err() != nil {
					t.Error("the next holder has lost it")
				}
			})
		})
	}
}

// TestWantedAnew: a name that is wanted anew while the claim of a caller who has gone is in doubt
// is held with the value of the new one.
func TestWantedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := hoststest.NewMemory()
		a := join(t, m, hosts.NamesConfig{Host: "a"})
		live(t, a)
		m.SetFault(faultOf("Commit", hoststest.LoseAnswer))
		hasty, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := a.Register(hasty, "billing", []byte("old")); err == nil {
			t.Fatal("registered without an answer")
		}
		time.AfterFunc(time.Second, func() { m.SetFault(nil) })
		h := register(t, a, "billing", "new")
		for _, e := range m.Entries() {
			if strings.HasSuffix(e.Key, "/names/billing") && (e.Created != h.Fence().Number || !strings.Contains(string(e.Value), "bmV3")) {
				t.Errorf("entry %+v: %s, want that of %v", e, e.Value, h.Fence())
			}
		}
	})
}

// TestLateDelete: a delete that comes when the name is another's does not take it away.
func TestLateDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := hoststest.NewMemory()
		a, b := join(t, m, hosts.NamesConfig{Host: "a"}), join(t, m, hosts.NamesConfig{Host: "b"})
		held := register(t, a, "billing", "")
		m.SetFault(faultOf("Commit", hoststest.DoLate))
		hasty, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := held.Release(hasty); !errors.Is(err, hosts.ErrUnavailable) {
			t.Errorf("release in doubt: %v", err)
		}
		admin, err := m.Open("admin")
		if err != nil {
			t.Fatal(err)
		}
		if err := admin.Revoke(t.Context(), a.Session().Lease); err != nil {
			t.Fatal(err)
		}
		next := register(t, b, "billing", "")
		time.Sleep(20 * time.Second)
		if next.Context().Err() != nil {
			t.Error("the next holder has lost it")
		}
	})
}

// beforeClaim has do called right before the first claim of a name by host a is done.
func beforeClaim(m *hoststest.Memory, do func()) {
	var done atomic.Bool
	m.SetFault(func(host, call string) hoststest.Fault {
		if host == "a" && call == "Commit" && !done.Swap(true) {
			do()
		}
		return hoststest.Deliver
	})
}

// TestClaimMeets: a claim looks whether its session is there still, and takes what another claim of
// the session has left for what it is.
func TestClaimMeets(t *testing.T) {
	for name, meet := range map[string]func(admin hosts.Engine, l hosts.Lease) hosts.Op{
		"no session": func(hosts.Engine, hosts.Lease) hosts.Op {
			return hosts.Op{Key: "coppice/shop/hosts/a", Delete: true}
		},
		"an entry of a former session": func(admin hosts.Engine, _ hosts.Lease) hosts.Op {
			var r struct{ Owner string }
			l, err := admin.List(t.Context(), "coppice/shop/hosts/a")
			if err == nil {
				err = json.Unmarshal(l.Entries[0].Value, &r)
			}
			long, bad := admin.Grant(t.Context(), time.Hour)
			if err = errors.Join(err, bad); err != nil {
				t.Error(err)
			}
			return hosts.Op{Key: "coppice/shop/names/billing", Lease: long, Value: fmt.Appendf(nil, `{"host":"a","owner":%q,"token":1}`, r.Owner)}
		},
		"an entry of another claim": func(_ hosts.Engine, l hosts.Lease) hosts.Op {
			return hosts.Op{Key: "coppice/shop/names/billing", Lease: l, Value: []byte(`{"host":"a","boot":"boot-a","token":99,"value":"b2xk"}`)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := hoststest.NewMemory()
				a := join(t, m, hosts.NamesConfig{Host: "a", Boot: "boot-a"})
				live(t, a)
				admin, err := m.Open("admin")
				if err != nil {
					t.Fatal(err)
				}
				before := a.Session().Lease
				beforeClaim(m, func() {
					if _, err := admin.Commit(t.Context(), hosts.Txn{Then: []hosts.Op{meet(admin, before)}}); err != nil {
						t.Error(err)
					}
				})
				held := register(t, a, "billing", "new")
				time.Sleep(time.Minute)
				if held.Context().Err() != nil {
					t.Errorf("held under a session that was gone: %v", context.Cause(held.Context()))
				}
				found := false
				for _, e := range m.Entries() {
					found = found || e.Created == held.Fence().Number && strings.Contains(string(e.Value), "bmV3")
				}
				if !found {
					t.Errorf("the entry is not that of the claim: %+v", m.Entries())
				}
			})
		})
	}
}

// TestHostTwice: a second host of the same name waits, and says why; it begins when the first has
// ended, or at once if the first's process is known to be dead.
func TestHostTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := hoststest.NewMemory()
		a := join(t, m, hosts.NamesConfig{Host: "a", Boot: "first"})
		live(t, a)
		register(t, a, "billing", "")
		again := join(t, m, hosts.NamesConfig{Host: "a"})
		hasty, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		err := again.WaitLive(hasty)
		if !errors.Is(err, actors.ErrNameTaken) || !strings.Contains(err.Error(), "first") {
			t.Errorf("wait of the second: %v", err)
		}
		over, end := context.WithCancel(t.Context())
		end()
		_ = a.Close(over) // as if it were killed: its lease stays
		at := time.Now()
		live(t, again)
		if time.Since(at) > 6*time.Second {
			t.Errorf("the second began %v after the first's end", time.Since(at))
		}
		lease := again.Session().Lease
		_ = again.Close(over)
		at = time.Now()
		third := join(t, m, hosts.NamesConfig{Host: "a", Before: lease})
		live(t, third)
		if time.Since(at) > time.Second {
			t.Errorf("the third began %v after the second, whose lease it knew", time.Since(at))
		}
	})
}

// TestGivenBackInDoubt: a name that this host gives back, and does not know to be free, is given
// back once however often that is asked for, and is no other's for who wants it here: he waits.
func TestGivenBackInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := hoststest.NewMemory()
		a := join(t, m, hosts.NamesConfig{Host: "a"})
		first := register(t, a, "billing", "")
		m.SetFault(faultOf("Commit", hoststest.LoseAnswer))
		hasty, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range 2 {
			if err := first.Release(hasty); !errors.Is(err, hosts.ErrUnavailable) {
				t.Errorf("release in doubt: %v", err)
			}
		}
		time.AfterFunc(time.Second, func() { m.SetFault(nil) })
		second := register(t, a, "billing", "")
		if second.Fence().Number <= first.Fence().Number {
			t.Errorf("fence %d after %d", second.Fence().Number, first.Fence().Number)
		}
		release(t, second)
		release(t, first)
	})
}

// TestTakenAway: an entry that another hand deletes ends the holding, and that of the host its
// session.
func TestTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := hoststest.NewMemory()
		a := join(t, m, hosts.NamesConfig{Host: "a"})
		one, two := register(t, a, "one", ""), register(t, a, "two", "")
		admin, err := m.Open("admin")
		if err != nil {
			t.Fatal(err)
		}
		remove := func(key string) {
			if _, err := admin.Commit(t.Context(), hosts.Txn{Then: []hosts.Op{{Key: key, Delete: true}}}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		remove("coppice/shop/names/one")
		if !errors.Is(context.Cause(one.Context()), hosts.ErrLost) || two.Context().Err() != nil {
			t.Errorf("after one was deleted: %v, %v", context.Cause(one.Context()), context.Cause(two.Context()))
		}
		release(t, one)
		register(t, a, "one", "")
		before := a.Session().Lease
		remove("coppice/shop/hosts/a")
		if !errors.Is(context.Cause(two.Context()), hosts.ErrLost) {
			t.Errorf("after the host was deleted: %v", context.Cause(two.Context()))
		}
		release(t, two)
		if live(t, a); a.Session().Lease == before {
			t.Error("the session goes on under the lease of the deleted entry")
		}
	})
}

// TestCompacted: a host that was cut off for longer than changes are kept knows who holds what when
// it is back.
func TestCompacted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := hoststest.NewMemory()
		a, b := join(t, m, hosts.NamesConfig{Host: "a"}), join(t, m, hosts.NamesConfig{Host: "b"})
		mine, theirs := register(t, a, "mine", ""), register(t, b, "theirs", "")
		synctest.Wait()
		m.Cut("a", true)
		<-mine.Context().Done()
		release(t, theirs)
		register(t, b, "new", "")
		moved := eventually(t, b, "mine")
		m.Compact()
		m.Cut("a", false)
		_ = mine.Release(t.Context())
		live(t, a)
		time.Sleep(time.Second)
		if h, err := a.Lookup("mine"); err != nil || h.Fence != moved.Fence() {
			t.Errorf("mine: %+v, %v, want %v", h, err, moved.Fence())
		}
		if h, err := a.Lookup("new"); err != nil || h.Host != "b" {
			t.Errorf("new: %+v, %v", h, err)
		}
		if _, err := a.Lookup("theirs"); !errors.Is(err, actors.ErrNoActor) {
			t.Errorf("theirs: %v", err)
		}
	})
}

// TestClose: a close waits for what is held, then frees all at once; one whose context ends leaves
// the lease.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := hoststest.NewMemory()
		a, b := join(t, m, hosts.NamesConfig{Host: "a"}), join(t, m, hosts.NamesConfig{Host: "b"})
		held := register(t, a, "billing", "")
		closed := make(chan error, 1)
		go func() { closed <- a.Close(t.Context()) }()
		<-held.Context().Done()
		time.Sleep(20 * time.Second) // what it is for takes long to stop; the lease goes on
		if _, err := b.Register(t.Context(), "billing", nil); !errors.Is(err, actors.ErrNameTaken) {
			t.Errorf("before the release: %v", err)
		}
		release(t, held)
		if err := <-closed; err != nil {
			t.Error(err)
		}
		next := register(t, b, "billing", "")
		if _, err := a.Register(t.Context(), "other", nil); !errors.Is(err, hosts.ErrNamesClosed) {
			t.Errorf("register after the close: %v", err)
		}
		over, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Close(over); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close with something held: %v", err)
		}
		if m.Leases() != 1 || next.Context().Err() == nil {
			t.Errorf("%d leases are there, want that of what may still run", m.Leases())
		}
	})
}

// TestBadNames: what cannot be used is named.
func TestBadNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := hoststest.NewMemory()
		e, err := m.Open("a")
		if err != nil {
			t.Fatal(err)
		}
		for want, cfg := range map[string]hosts.NamesConfig{
			"Cluster": {Host: "a"}, "Host": {Cluster: "c", Host: "a/b"},
			"Lease":  {Cluster: "c", Host: "a", Lease: time.Millisecond},
			"Margin": {Cluster: "c", Host: "a", Lease: time.Second, Margin: time.Second},
			"Boot":   {Cluster: "c", Host: "a", Boot: strings.Repeat("x", 300)},
		} {
			if _, err := hosts.NewNamesByTime(e, cfg); err == nil || !strings.Contains(err.Error(), "NamesConfig."+want) {
				t.Errorf("%s: %v", want, err)
			}
		}
		a := join(t, m, hosts.NamesConfig{Host: "a"})
		for _, name := range []string{"", "a b", "/a", "a/", "\x00", "\xff", strings.Repeat("x", 256)} {
			if _, err := a.Register(t.Context(), name, nil); !errors.Is(err, actors.ErrName) {
				t.Errorf("%.10q: %v", name, err)
			}
			if _, err := a.Lookup(name); !errors.Is(err, actors.ErrName) {
				t.Errorf("%.10q: %v", name, err)
			}
		}
		if _, err := a.Register(t.Context(), "a", make([]byte, hosts.MaxHolding+1)); err == nil {
			t.Error("a value that is too long was taken")
		}
		m.Cut("a", true)
		hasty, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.Register(hasty, "a", nil); !errors.Is(err, hosts.ErrUnavailable) {
			t.Errorf("register without an engine: %v", err)
		}
	})
}

// TestGuard: a lower fence than one that has passed is refused, by name.
func TestGuard(t *testing.T) {
	var g hosts.Guard
	for i, row := range []struct {
		fence hosts.Fence
		stale bool
	}{
		{hosts.Fence{}, true},
		{hosts.Fence{Name: "a", Number: 5}, false},
		{hosts.Fence{Name: "a", Number: 5}, false},
		{hosts.Fence{Name: "a", Number: 4}, true},
		{hosts.Fence{Name: "b", Number: 4}, false},
		{hosts.Fence{Name: "a", Number: 9}, false},
		{hosts.Fence{Name: "a", Number: 5}, true},
		{hosts.Fence{Name: "a"}, true},
	} {
		if err := g.Check(row.fence); errors.Is(err, hosts.ErrStale) != row.stale {
			t.Errorf("%d, %v: %v", i, row.fence, err)
		}
	}
	f := hosts.Fence{Name: "carts/7", Number: 12}
	if got, err := hosts.ParseFence(f.String()); err != nil || got != f {
		t.Errorf("%q is read as %v, %v", f, got, err)
	}
	for _, s := range []string{"", "12", "0 a", "-1 a", "x a", "12 ", "12 a b"} {
		if got, err := hosts.ParseFence(s); err == nil {
			t.Errorf("%q is read as %v", s, got)
		}
	}
}

// TestBootAlarm: the system's timer rings when its time has come, at once if that is over, and not
// when it was disarmed.
func TestBootAlarm(t *testing.T) {
	rings := make(chan time.Time, 8)
	set, stop, err := hosts.NewBootAlarm(func() { rings <- time.Now() })
	if err != nil {
		t.Fatal(err)
	}
	set(time.Hour)
	set(-1)
	begun := time.Now()
	set(20 * time.Millisecond)
	if at := <-rings; at.Sub(begun) < 20*time.Millisecond {
		t.Errorf("rang after %v, before its time", at.Sub(begun))
	}
	set(0)
	<-rings
	set(time.Hour)
	stop()
	if len(rings) != 0 {
		t.Errorf("%d rings too many", len(rings))
	}
}

// TestTwoOfOneBoot: a second Names of one host and boot takes nothing from the first, not even
// while the first is cut off.
func TestTwoOfOneBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := hoststest.NewMemory()
		first := join(t, m, hosts.NamesConfig{Host: "a", Boot: "boot-a"})
		h, err := first.Register(t.Context(), "billing", nil)
		if err != nil {
			t.Fatal(err)
		}
		second := join(t, m, hosts.NamesConfig{Host: "a", Boot: "boot-a"})
		ctx, cancel := context.WithTimeout(t.Context(), hosts.DefaultLease/2)
		defer cancel()
		if _, err := second.Register(ctx, "billing", nil); err == nil {
			t.Error("two hold the name")
		}
		if h.Context().Err() != nil {
			t.Error("the first has lost it:", context.Cause(h.Context()))
		}
	})
}

// TestReleaseInDoubt: a release whose session ends before the engine has answered says so, as the
// name is not free yet; one of what was lost before has nothing to say.
func TestReleaseInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := hoststest.NewMemory()
		a, b := join(t, m, hosts.NamesConfig{Host: "a"}), join(t, m, hosts.NamesConfig{Host: "b"})
		one, two := register(t, a, "one", ""), register(t, a, "two", "")
		live(t, b)
		m.Cut("a", true)
		if err := one.Release(t.Context()); !errors.Is(err, hosts.ErrLost) {
			t.Errorf("release in doubt: %v", err)
		}
		if _, err := b.Register(t.Context(), "one", nil); !errors.Is(err, actors.ErrNameTaken) {
			t.Errorf("register of what is not free yet: %v", err)
		}
		<-two.Context().Done()
		release(t, two)
		eventually(t, b, "one")
	})
}

// TestRefusedAfterDoubt: a refusal after a claim that was done, and whose answer and session were
// lost, says that there was one: another was refused because of it.
func TestRefusedAfterDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := hoststest.NewMemory()
		a, b := join(t, m, hosts.NamesConfig{Host: "a"}), join(t, m, hosts.NamesConfig{Host: "b"})
		live(t, a)
		live(t, b)
		m.SetFault(faultOf("Commit", hoststest.LoseAnswer))
		refused := make(chan error)
		go func() {
			_, err := a.Register(t.Context(), "billing", nil)
			refused <- err
		}()
		synctest.Wait()
		m.SetFault(nil)
		m.Cut("a", true)
		if _, err := b.Register(t.Context(), "billing", nil); !errors.Is(err, actors.ErrNameTaken) || errors.Is(err, hosts.ErrUnavailable) {
			t.Errorf("register beside the claim: %v", err)
		}
		eventually(t, b, "billing") // when the lease of a has ended
		m.Cut("a", false)
		if err := <-refused; !errors.Is(err, actors.ErrNameTaken) || !errors.Is(err, hosts.ErrUnavailable) {
			t.Errorf("register after it: %v", err)
		}
	})
}
