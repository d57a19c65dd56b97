package hoststest_test

import (
	"context"
	"iter"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/hoststest"
)

func open(t *testing.T, m *hoststest.Memory, host string) hosts.Engine {
	t.Helper()
	e, err := m.Open(host)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// run runs the checks in virtual time, and returns the names of those that fail.
func run(t *testing.T, wrap func(hosts.Engine) hosts.Engine) map[string]error {
	t.Helper()
	failed := make(map[string]error)
	synctest.Test(t, func(t *testing.T) {
		m := hoststest.NewMemory()
		engines := []hosts.Engine{wrap(open(t, m, "a")), wrap(open(t, m, "b"))}
		for _, c := range hoststest.EngineChecks {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if err := c.Run(ctx, engines, 5*time.Second); err != nil {
				failed[c.Name] = err
			}
			cancel()
			synctest.Wait()
		}
		for _, e := range engines {
			e.Close()
		}
	})
	return failed
}

// TestMemory: the engine in memory holds what an engine must.
func TestMemory(t *testing.T) {
	for name, err := range run(t, func(e hosts.Engine) hosts.Engine { return e }) {
		t.Errorf("%s: %v", name, err)
	}
}

// broken is an engine with one fault.
type broken struct {
	hosts.Engine
	commit func(hosts.Txn) hosts.Txn
	list   func(prefix string) (hosts.Listing, bool)
	watch  func(hosts.Changes) []hosts.Changes
	ttl    func(time.Duration) time.Duration
	renew  func() bool
}

func (b *broken) Commit(ctx context.Context, t hosts.Txn) (hosts.Result, error) {
	if b.commit != nil {
		t = b.commit(t)
	}
	return b.Engine.Commit(ctx, t)
}

func (b *broken) List(ctx context.Context, prefix string) (hosts.Listing, error) {
	if b.list != nil {
		if l, ok := b.list(prefix); ok {
			return l, nil
		}
	}
	return b.Engine.List(ctx, prefix)
}

func (b *broken) Watch(ctx context.Context, prefix string, after uint64) iter.Seq2[hosts.Changes, error] {
	if b.watch == nil {
		return b.Engine.Watch(ctx, prefix, after)
	}
	return func(yield func(hosts.Changes, error) bool) {
		for c, err := range b.Engine.Watch(ctx, prefix, after) {
			if err != nil {
				yield(c, err)
				return
			}
			for _, c := range b.watch(c) {
				if !yield(c, nil) {
					return
				}
			}
		}
	}
}

func (b *broken) Grant(ctx context.Context, ttl time.Duration) (hosts.Lease, error) {
	if b.ttl != nil {
		ttl = b.ttl(ttl)
	}
	return b.Engine.Grant(ctx, ttl)
}

func (b *broken) Renew(ctx context.Context, l hosts.Lease) error {
	if b.renew != nil && !b.renew() {
		return nil
	}
	return b.Engine.Renew(ctx, l)
}

// TestChecksNotice: the checks notice an engine that breaks a rule.
func TestChecksNotice(t *testing.T) {
	for name, row := range map[string]struct {
		notices string
		make    func(e hosts.Engine) *broken
	}{
		"stale lists": {"reads are fresh", func(e hosts.Engine) *broken {
			last := make(map[string]hosts.Listing)
			n := 0
			return &broken{list: func(prefix string) (hosts.Listing, bool) {
				if n++; n%5 == 0 && last[prefix].Revision != 0 {
					return last[prefix], true
				}
				last[prefix], _ = e.List(context.Background(), prefix)
				return last[prefix], true
			}}
		}},
		"conditions not compared": {"one winner", func(hosts.Engine) *broken {
			return &broken{commit: func(t hosts.Txn) hosts.Txn { t.If = nil; return t }}
		}},
		"delete without revision": {"delete by revision", func(hosts.Engine) *broken {
			return &broken{commit: func(t hosts.Txn) hosts.Txn {
				if len(t.Then) == 1 && t.Then[0].Delete {
					t.If = nil
				}
				return t
			}}
		}},
		"half a transaction": {"conditions", func(hosts.Engine) *broken {
			return &broken{commit: func(t hosts.Txn) hosts.Txn { t.Then = t.Then[:min(1, len(t.Then))]; return t }}
		}},
		"changes told twice": {"watch", func(hosts.Engine) *broken {
			return &broken{watch: func(c hosts.Changes) []hosts.Changes { return []hosts.Changes{c, c} }}
		}},
		"changes of one revision apart": {"watch", func(hosts.Engine) *broken {
			return &broken{watch: func(c hosts.Changes) (apart []hosts.Changes) {
				for _, change := range c.Changes {
					apart = append(apart, hosts.Changes{Revision: c.Revision, Changes: []hosts.Change{change}})
				}
				return apart
			}}
		}},
		"changes missed": {"watch goes on", func(hosts.Engine) *broken {
			var n atomic.Int32
			return &broken{watch: func(c hosts.Changes) []hosts.Changes {
				if n.Add(1)%4 == 0 {
					return nil
				}
				return []hosts.Changes{c}
			}}
		}},
		"short leases": {"lease ends", func(hosts.Engine) *broken {
			return &broken{ttl: func(ttl time.Duration) time.Duration { return ttl * 9 / 10 }}
		}},
		"renewals not done": {"lease lasts", func(hosts.Engine) *broken {
			n := 0
			return &broken{renew: func() bool { n++; return n%20 < 2 }}
		}},
		"leases not used": {"lease ends", func(hosts.Engine) *broken {
			return &broken{commit: func(t hosts.Txn) hosts.Txn {
				for i := range t.Then {
					t.Then[i].Lease = 0
				}
				return t
			}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			failed := run(t, func(e hosts.Engine) hosts.Engine {
				b := row.make(e)
				b.Engine = e
				return b
			})
			if failed[row.notices] == nil {
				t.Errorf("%q does not notice; failed: %v", row.notices, failed)
			}
		})
	}
}
