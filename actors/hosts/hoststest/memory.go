package hoststest

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coppice-go/coppice/actors/hosts"
)

// A Fault is what happens to one call of a host to a Memory.
type Fault uint8

// The faults.
const (
	Deliver     Fault = iota // none: it is done, and answered
	LoseRequest              // it is not done; the caller waits until its context ends
	LoseAnswer               // it is done; the caller waits until its context ends
	DoLate                   // it is done when the caller's context has ended
	AnswerLate               // it is done, and answered after AnswerDelay
)

// AnswerDelay is how late AnswerLate is.
const AnswerDelay = time.Second

// Memory is an engine in memory for tests, with faults: a spec for any number of hosts, which share
// its entries. Its time is that of package time, so it runs in a bubble of testing/synctest. Its
// methods may be called concurrently.
type Memory struct {
	mu        sync.Mutex
	changed   chan struct{} // closed at each change of what a watch waits for
	revision  uint64
	entries   map[string]hosts.Entry
	leases    map[hosts.Lease]*memoryLease
	lease     hosts.Lease
	history   []hosts.Changes // after compacted
	compacted uint64
	cut       map[string]bool
	fault     func(host, call string) Fault
	calls     map[string]int
}

// A memoryLease is a lease that has not ended.
type memoryLease struct {
	ttl   time.Duration
	timer *time.Timer
}

var _ hosts.EngineSpec = (*Memory)(nil)

// NewMemory returns an engine without entries and faults.
func NewMemory() *Memory {
	return &Memory{
		changed: make(chan struct{}), entries: make(map[string]hosts.Entry), leases: make(map[hosts.Lease]*memoryLease),
		cut: make(map[string]bool), calls: make(map[string]int),
	}
}

// Validate returns nil.
func (m *Memory) Validate(string) error { return nil }

// Open returns what host reaches the engine by.
func (m *Memory) Open(host string) (hosts.Engine, error) {
	ctx, cancel := context.WithCancel(context.Background())
	return &memoryConn{m: m, host: host, closed: ctx, end: cancel}, nil
}

// Cut isolates host from the engine, or ends that: its calls wait until their contexts end, and are
// not done; its watches hear nothing, and all of it when it is over.
func (m *Memory) Cut(host string, cut bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut[host] = cut
	m.wakeLocked()
}

// SetFault has f decide what happens to each call from now on; nil: Deliver. f is called without a
// lock, on the goroutine of the caller, with the name of the method.
func (m *Memory) SetFault(f func(host, call string) Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

// Calls returns how many calls of a method host has made.
func (m *Memory) Calls(host, call string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls[host+" "+call]
}

// Extend has every lease last for its time from now on, as it is after a change of etcd's leader.
func (m *Memory) Extend() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.leases {
		l.timer.Reset(l.ttl)
	}
}

// Compact forgets all changes there were: a watch from before ends with hosts.ErrCompacted.
func (m *Memory) Compact() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.history, m.compacted = nil, m.revision
	m.wakeLocked()
}

// Entries returns what is there, in the order of keys.
func (m *Memory) Entries() []hosts.Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.listLocked("").Entries
}

// Leases returns how many leases there are.
func (m *Memory) Leases() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.leases)
}

func (m *Memory) wakeLocked() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *Memory) listLocked(prefix string) hosts.Listing {
	l := hosts.Listing{Revision: m.revision}
	for _, key := range slices.Sorted(maps.Keys(m.entries)) {
		if strings.HasPrefix(key, prefix) {
			l.Entries = append(l.Entries, clone(m.entries[key]))
		}
	}
	return l
}

func clone(e hosts.Entry) hosts.Entry {
	e.Value = slices.Clone(e.Value)
	return e
}

func (m *Memory) commitLocked(t hosts.Txn) (hosts.Result, error) {
	res := hosts.Result{Done: true}
	for _, c := range t.If {
		if m.entries[c.Key].Created != c.Created {
			res.Done = false
		}
	}
	if res.Done {
		for _, op := range t.Then {
			if m.leases[op.Lease] == nil && op.Lease != 0 && !op.Delete {
				return hosts.Result{}, fmt.Errorf("hoststest: commit: %w", hosts.ErrNoLease)
			}
		}
		m.changeLocked(t.Then)
	}
	res.Revision = m.revision
	for _, key := range t.Read {
		if e, ok := m.entries[key]; ok {
			res.Entries = append(res.Entries, clone(e))
		}
	}
	return res, nil
}

// changeLocked does ops in one revision, if they change anything.
func (m *Memory) changeLocked(ops []hosts.Op) {
	c := hosts.Changes{Revision: m.revision + 1}
	for _, op := range ops {
		old, there := m.entries[op.Key]
		switch {
		case op.Delete && there:
			delete(m.entries, op.Key)
			c.Changes = append(c.Changes, hosts.Change{Entry: old, Deleted: true})
		case !op.Delete:
			e := hosts.Entry{Key: op.Key, Value: slices.Clone(op.Value), Lease: op.Lease, Created: old.Created, Modified: c.Revision}
			if !there {
				e.Created = c.Revision
			}
			m.entries[op.Key] = e
			c.Changes = append(c.Changes, hosts.Change{Entry: e})
		}
	}
	if len(c.Changes) > 0 {
		m.revision++
		m.history = append(m.history, c)
		m.wakeLocked()
	}
}

func (m *Memory) end(id hosts.Lease) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endLocked(id)
}

func (m *Memory) endLocked(id hosts.Lease) {
	l := m.leases[id]
	if l == nil {
		return
	}
	l.timer.Stop()
	delete(m.leases, id)
	var ops []hosts.Op
	for _, key := range slices.Sorted(maps.Keys(m.entries)) {
		if m.entries[key].Lease == id {
			ops = append(ops, hosts.Op{Key: key, Delete: true})
		}
	}
	m.changeLocked(ops)
}

// memoryConn is the engine as one host reaches it.
type memoryConn struct {
	m      *Memory
	host   string
	closed context.Context
	end    context.CancelFunc
}

// call does do under the lock, with the faults of the moment.
func (c *memoryConn) call(ctx context.Context, name string, do func() error) error {
	m := c.m
	m.mu.Lock()
	m.calls[c.host+" "+name]++
	fault := m.fault
	m.mu.Unlock()
	kind := Deliver
	if fault != nil {
		kind = fault(c.host, name)
	}
	locked := func() (err error, cut bool) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.cut[c.host] {
			return nil, true
		}
		return do(), false
	}
	if err := c.over(ctx, name); err != nil {
		return err
	}
	var late <-chan time.Time
	var answer error
	if kind == Deliver || kind == LoseAnswer || kind == AnswerLate {
		err, cut := locked()
		if kind == Deliver && !cut {
			return err
		}
		if kind == AnswerLate && !cut {
			answer, late = err, time.After(AnswerDelay)
		}
	}
	select {
	case <-late:
		return answer
	case <-ctx.Done():
	case <-c.closed.Done():
	}
	if kind == DoLate {
		_, _ = locked() // nobody hears the answer
	}
	return c.over(ctx, name)
}

func (c *memoryConn) over(ctx context.Context, name string) error {
	switch {
	case c.closed.Err() != nil:
		return fmt.Errorf("hoststest: %s: closed: %w", name, hosts.ErrUnavailable)
	case ctx.Err() != nil:
		return fmt.Errorf("hoststest: %s: %w: %w", name, hosts.ErrUnavailable, context.Cause(ctx))
	}
	return nil
}

// Commit does what hosts.Engine says.
func (c *memoryConn) Commit(ctx context.Context, t hosts.Txn) (res hosts.Result, err error) {
	err = c.call(ctx, "Commit", func() (err error) {
		res, err = c.m.commitLocked(t)
		return err
	})
	if err != nil {
		return hosts.Result{}, err
	}
	return res, nil
}

// List does what hosts.Engine says.
func (c *memoryConn) List(ctx context.Context, prefix string) (l hosts.Listing, err error) {
	err = c.call(ctx, "List", func() error {
		l = c.m.listLocked(prefix)
		return nil
	})
	if err != nil {
		return hosts.Listing{}, err
	}
	return l, nil
}

// Grant does what hosts.Engine says.
func (c *memoryConn) Grant(ctx context.Context, ttl time.Duration) (id hosts.Lease, err error) {
	err = c.call(ctx, "Grant", func() error {
		c.m.lease++
		granted := c.m.lease
		c.m.leases[granted] = &memoryLease{ttl: ttl, timer: time.AfterFunc(ttl, func() { c.m.end(granted) })}
		id = granted
		return nil
	})
	if err != nil {
		return 0, err
	}
	return id, nil
}

// Renew does what hosts.Engine says.
func (c *memoryConn) Renew(ctx context.Context, id hosts.Lease) error {
	return c.call(ctx, "Renew", func() error {
		l := c.m.leases[id]
		if l == nil {
			return fmt.Errorf("hoststest: renew: %w", hosts.ErrNoLease)
		}
		l.timer.Reset(l.ttl)
		return nil
	})
}

// Revoke does what hosts.Engine says.
func (c *memoryConn) Revoke(ctx context.Context, id hosts.Lease) error {
	return c.call(ctx, "Revoke", func() error {
		c.m.endLocked(id)
		return nil
	})
}

// Watch does what hosts.Engine says.
func (c *memoryConn) Watch(ctx context.Context, prefix string, after uint64) iter.Seq2[hosts.Changes, error] {
	return func(yield func(hosts.Changes, error) bool) {
		for {
			next, changed, err := c.after(prefix, &after)
			if err == nil {
				err = c.over(ctx, "watch")
			}
			if err != nil {
				yield(hosts.Changes{}, err)
				return
			}
			for _, change := range next {
				if !yield(change, nil) {
					return
				}
			}
			if len(next) == 0 {
				select {
				case <-changed:
				case <-ctx.Done():
				case <-c.closed.Done():
				}
			}
		}
	}
}

// after returns what has changed under prefix after *after, and moves that; or what is closed at
// the next change.
func (c *memoryConn) after(prefix string, after *uint64) ([]hosts.Changes, <-chan struct{}, error) {
	m := c.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cut[c.host] {
		return nil, m.changed, nil
	}
	if *after < m.compacted {
		return nil, nil, fmt.Errorf("hoststest: watch after %d: %w", *after, hosts.ErrCompacted)
	}
	var next []hosts.Changes
	for _, h := range m.history {
		if h.Revision <= *after {
			continue
		}
		var found []hosts.Change
		for _, change := range h.Changes {
			if strings.HasPrefix(change.Entry.Key, prefix) {
				change.Entry = clone(change.Entry)
				found = append(found, change)
			}
		}
		if len(found) > 0 {
			next = append(next, hosts.Changes{Revision: h.Revision, Changes: found})
		}
		*after = h.Revision
	}
	return next, m.changed, nil
}

// Close does what hosts.Engine says.
func (c *memoryConn) Close() error {
	c.end()
	return nil
}
