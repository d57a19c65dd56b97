package hoststest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coppice-go/coppice/actors/hosts"
)

// TestEngine runs EngineChecks as subtests, which run in parallel: engines are connections to one
// engine, of different hosts if there are several. ttl is the time of the leases in it, the shorter
// the sooner it is over; what an engine makes longer is waited for.
func TestEngine(t *testing.T, engines []hosts.Engine, ttl time.Duration) {
	t.Helper()
	t.Run("engine", func(t *testing.T) {
		for _, c := range EngineChecks {
			t.Run(c.Name, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := c.Run(ctx, engines, ttl); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

// An EngineCheck is one thing that an engine must hold.
type EngineCheck struct {
	Name string
	// Run returns what is wrong. It uses keys of its own below "check/" and its name.
	Run func(ctx context.Context, engines []hosts.Engine, ttl time.Duration) error
}

// EngineChecks are what every hosts.Engine must hold.
var EngineChecks = []EngineCheck{
	{"conditions", checkConditions},
	{"one winner", checkOneWinner},
	{"reads are fresh", checkFresh},
	{"delete by revision", checkDeleteByRevision},
	{"list", checkList},
	{"watch", checkWatch},
	{"watch goes on", checkWatchGoesOn},
	{"watch ends", checkWatchEnds},
	{"lease ends", checkLeaseEnds},
	{"lease lasts", checkLeaseLasts},
	{"lease revoked", checkRevoke},
	{"no lease", checkNoLease},
	{"context", checkContext},
}

// step is a check under way: its first failure is kept, and calls after it do nothing.
type step struct {
	ctx context.Context
	key string
	err error
}

func begin(ctx context.Context, name string) *step {
	return &step{ctx: ctx, key: "check/" + name + "/"}
}

func (s *step) that(ok bool, format string, args ...any) {
	if s.err == nil && !ok {
		s.err = fmt.Errorf(format, args...)
	}
}

func (s *step) commit(e hosts.Engine, t hosts.Txn) hosts.Result {
	if s.err != nil {
		return hosts.Result{}
	}
	var res hosts.Result
	res, s.err = e.Commit(s.ctx, t)
	return res
}

func (s *step) put(e hosts.Engine, key, value string, l hosts.Lease) uint64 {
	return s.commit(e, hosts.Txn{Then: []hosts.Op{{Key: s.key + key, Value: []byte(value), Lease: l}}}).Revision
}

func (s *step) list(e hosts.Engine, prefix string) hosts.Listing {
	if s.err != nil {
		return hosts.Listing{}
	}
	var l hosts.Listing
	l, s.err = e.List(s.ctx, s.key+prefix)
	return l
}

func (s *step) grant(e hosts.Engine, ttl time.Duration) hosts.Lease {
	if s.err != nil {
		return 0
	}
	var l hosts.Lease
	l, s.err = e.Grant(s.ctx, ttl)
	s.that(s.err != nil || l != 0, "the lease 0 was granted")
	return l
}

func (s *step) try(err error) {
	if s.err == nil {
		s.err = err
	}
}

// watch returns the first n changes after a revision, each with its revision, as text.
func (s *step) watch(e hosts.Engine, prefix string, after uint64, n int) []string {
	var got []string
	if s.err != nil {
		return nil
	}
	for c, err := range e.Watch(s.ctx, s.key+prefix, after) {
		if err != nil {
			s.try(fmt.Errorf("watch, after %q: %w", got, err))
			break
		}
		for _, change := range c.Changes {
			got = append(got, s.text(c.Revision-after, change))
		}
		if len(got) >= n {
			break
		}
	}
	return got
}

func (s *step) text(revision uint64, c hosts.Change) string {
	if c.Deleted {
		return fmt.Sprintf("%d: %s deleted", revision, c.Entry.Key[len(s.key):])
	}
	return fmt.Sprintf("%d: %s=%s", revision, c.Entry.Key[len(s.key):], c.Entry.Value)
}

func checkConditions(ctx context.Context, engines []hosts.Engine, _ time.Duration) error {
	s, e := begin(ctx, "conditions"), engines[0]
	a, b := s.key+"a", s.key+"b"
	absent := []hosts.Cond{{Key: a}, {Key: b}}
	both := []hosts.Op{{Key: a, Value: []byte("1")}, {Key: b, Value: []byte("2")}}
	made := s.commit(e, hosts.Txn{If: absent, Then: both, Read: []string{a, s.key + "none", b}})
	s.that(made.Done && len(made.Entries) == 2, "two entries that are not there: %+v", made)
	for i, entry := range made.Entries {
		s.that(entry.Created == made.Revision && entry.Modified == made.Revision && entry.Key == both[i].Key &&
			string(entry.Value) == string(both[i].Value) && entry.Lease == 0, "entry made by %d: %+v", made.Revision, entry)
	}
	refused := s.commit(e, hosts.Txn{If: absent, Then: []hosts.Op{{Key: a, Value: []byte("3")}}, Read: []string{a}})
	s.that(!refused.Done && len(refused.Entries) == 1 && string(refused.Entries[0].Value) == "1", "entries that are there: %+v", refused)
	one := []hosts.Cond{{Key: a, Created: made.Revision}, {Key: b}}
	refused = s.commit(e, hosts.Txn{If: one, Then: []hosts.Op{{Key: a, Value: []byte("4")}}})
	s.that(!refused.Done, "one condition of two holds: %+v", refused)
	over := s.commit(e, hosts.Txn{If: one[:1], Then: []hosts.Op{{Key: a, Value: []byte("5")}, {Key: b, Delete: true}}, Read: []string{a, b}})
	s.that(over.Done && over.Revision > made.Revision && len(over.Entries) == 1 && over.Entries[0].Created == made.Revision &&
		over.Entries[0].Modified == over.Revision && string(over.Entries[0].Value) == "5", "put over an entry, made by %d: %+v", made.Revision, over)
	nothing := s.commit(e, hosts.Txn{Then: []hosts.Op{{Key: s.key + "none", Delete: true}}})
	s.that(nothing.Done, "a delete of what is not there: %+v", nothing)
	empty := s.commit(e, hosts.Txn{Read: []string{a}})
	s.that(empty.Done && empty.Revision >= over.Revision && len(empty.Entries) == 1, "nothing but a read: %+v", empty)
	again := s.commit(e, hosts.Txn{If: []hosts.Cond{{Key: b}}, Then: []hosts.Op{{Key: b}}, Read: []string{b}})
	s.that(again.Done && len(again.Entries) == 1 && again.Entries[0].Created == again.Revision && len(again.Entries[0].Value) == 0,
		"an entry anew, without a value: %+v", again)
	return s.err
}

func checkOneWinner(ctx context.Context, engines []hosts.Engine, _ time.Duration) error {
	s := begin(ctx, "one winner")
	for round := range 10 {
		key := fmt.Sprint(s.key, round)
		var mu sync.Mutex
		var wg sync.WaitGroup
		won, seen := 0, make(map[string]int)
		for i := range 8 {
			wg.Go(func() {
				res, err := engines[i%len(engines)].Commit(ctx, hosts.Txn{
					If: []hosts.Cond{{Key: key}}, Then: []hosts.Op{{Key: key, Value: []byte{'0' + byte(i)}}}, Read: []string{key},
				})
				mu.Lock()
				defer mu.Unlock()
				s.try(err)
				if res.Done {
					won++
				}
				for _, e := range res.Entries {
					seen[fmt.Sprintf("%s made by %d", e.Value, e.Created)]++
				}
			})
		}
		wg.Wait()
		s.that(won == 1 && len(seen) == 1, "%d of 8 have made one entry; seen were %v", won, seen)
	}
	return s.err
}

// checkFresh: what was acknowledged by one connection is there for the next read by another.
func checkFresh(ctx context.Context, engines []hosts.Engine, _ time.Duration) error {
	s := begin(ctx, "fresh")
	for round := range 100 {
		want := fmt.Sprint(round)
		s.put(engines[round%len(engines)], "k", want, 0)
		reader := engines[(round+1)%len(engines)]
		if l := s.list(reader, ""); s.err == nil {
			s.that(len(l.Entries) == 1 && string(l.Entries[0].Value) == want, "a list after the put of %s: %+v", want, l)
		}
		if res := s.commit(reader, hosts.Txn{Read: []string{s.key + "k"}}); s.err == nil {
			s.that(len(res.Entries) == 1 && string(res.Entries[0].Value) == want, "a read after the put of %s: %+v", want, res)
		}
	}
	return s.err
}

func checkDeleteByRevision(ctx context.Context, engines []hosts.Engine, _ time.Duration) error {
	s, e := begin(ctx, "delete"), engines[0]
	first := s.put(e, "k", "1", 0)
	remove := func(created uint64) bool {
		k := s.key + "k"
		return s.commit(e, hosts.Txn{If: []hosts.Cond{{Key: k, Created: created}}, Then: []hosts.Op{{Key: k, Delete: true}}}).Done
	}
	s.that(remove(first), "the entry is not deleted by the revision that made it")
	second := s.put(e, "k", "2", 0)
	s.that(second > first, "revision %d after %d", second, first)
	s.that(!remove(first), "an entry is deleted by the revision of one before")
	s.that(len(s.list(e, "k").Entries) == 1, "the second entry is gone")
	return s.err
}

func checkList(ctx context.Context, engines []hosts.Engine, _ time.Duration) error {
	s, e := begin(ctx, "list"), engines[0]
	for _, k := range []string{"b/2", "a", "b/1", "b", "c", "b/10"} {
		s.put(e, k, k, 0)
	}
	last := s.put(e, "b/2", "new", 0)
	l := s.list(engines[len(engines)-1], "b/")
	var got []string
	for _, entry := range l.Entries {
		got = append(got, entry.Key[len(s.key):]+"="+string(entry.Value))
	}
	s.that(slices.Equal(got, []string{"b/1=b/1", "b/10=b/10", "b/2=new"}) && l.Revision >= last, "b/ at %d, after %d: %q", l.Revision, last, got)
	s.that(len(s.list(e, "none").Entries) == 0, "there is something below a prefix without keys")
	return s.err
}

func checkWatch(ctx context.Context, engines []hosts.Engine, _ time.Duration) error {
	s, e := begin(ctx, "watch"), engines[0]
	start := s.put(e, "in/0", "before", 0)
	type seen struct {
		revisions []uint64
		texts     []string
		err       error
	}
	results := make(chan seen, 2)
	watcher := engines[len(engines)-1]
	for range 2 {
		go func() {
			var got seen
			for c, err := range watcher.Watch(ctx, s.key+"in/", start) {
				if err != nil {
					got.err = err
					break
				}
				got.revisions = append(got.revisions, c.Revision)
				text := ""
				for _, change := range c.Changes {
					text += " " + s.text(0, change)
				}
				if got.texts = append(got.texts, text); text == " 0: in/end=" {
					break
				}
			}
			results <- got
		}()
	}
	var revisions []uint64
	var texts []string
	for i := range 20 {
		k := fmt.Sprint("in/", i%3)
		revisions = append(revisions, s.put(e, k, fmt.Sprint(i), 0))
		texts = append(texts, fmt.Sprintf(" 0: %s=%d", k, i))
		s.put(e, "out", "x", 0)
	}
	both := []hosts.Op{{Key: s.key + "in/0", Delete: true}, {Key: s.key + "in/x", Value: []byte("1")}, {Key: s.key + "out", Delete: true}}
	revisions = append(revisions, s.commit(e, hosts.Txn{Then: both}).Revision)
	texts = append(texts, " 0: in/0 deleted 0: in/x=1")
	s.commit(e, hosts.Txn{Then: []hosts.Op{{Key: s.key + "in/none", Delete: true}}}) // changes nothing
	revisions = append(revisions, s.put(e, "in/end", "", 0))
	texts = append(texts, " 0: in/end=")
	if s.err != nil {
		return s.err
	}
	for range 2 {
		got := <-results
		s.try(got.err)
		s.that(slices.Equal(got.revisions, revisions) && slices.Equal(got.texts, texts), "watched %d %q\nwant %d %q", got.revisions, got.texts, revisions, texts)
	}
	return s.err
}

// checkWatchGoesOn: a watch that begins where another has ended tells the rest.
func checkWatchGoesOn(ctx context.Context, engines []hosts.Engine, _ time.Duration) error {
	s, e := begin(ctx, "goes on"), engines[0]
	start := s.put(e, "k", "0", 0)
	var revisions []uint64
	for i := range 10 {
		revisions = append(revisions, s.put(e, "k", fmt.Sprint(i+1), 0))
	}
	if s.err != nil {
		return s.err
	}
	last, n := start, 0
	for n < 10 && s.err == nil {
		for c, err := range engines[n%len(engines)].Watch(ctx, s.key, last) {
			if err != nil {
				return err
			}
			s.that(c.Revision == revisions[n] && len(c.Changes) == 1 && string(c.Changes[0].Entry.Value) == fmt.Sprint(n+1), "change %d: %+v", n, c)
			last = c.Revision
			n++
			if n%3 == 0 || n == 10 {
				break
			}
		}
	}
	return s.err
}

func checkWatchEnds(ctx context.Context, engines []hosts.Engine, _ time.Duration) error {
	s, e := begin(ctx, "ends"), engines[0]
	start := s.put(e, "k", "0", 0)
	if s.err != nil {
		return s.err
	}
	mine, cancel := context.WithCancel(ctx)
	defer cancel()
	var last error
	n := 0
	s.put(e, "k", "1", 0)
	for _, err := range e.Watch(mine, s.key, start) {
		if err != nil {
			last = err
			continue // it is the last
		}
		n++
		cancel()
	}
	s.that(n == 1 && errors.Is(last, context.Canceled), "after %d changes: %v", n, last)
	return s.err
}

// inTime runs a check of a lease until it has met no ErrNoLease that is due to its own slowness:
// one that came ttl or more after the last renewal was sent.
func inTime(check func(attempt string) (sent time.Time, err error), ttl time.Duration) error {
	for attempt := range 100 {
		sent, err := check(fmt.Sprint(attempt, "/"))
		if !errors.Is(err, hosts.ErrNoLease) {
			return err
		}
		if ago := time.Since(sent); ago < ttl {
			return fmt.Errorf("a lease of %v has ended %v after its last renewal was sent: %w", ttl, ago, err)
		}
	}
	return errors.New("too slow for leases of this time")
}

// checkLeaseEnds: a lease ends by itself, its entries and no others go, and a watch tells that.
func checkLeaseEnds(ctx context.Context, engines []hosts.Engine, ttl time.Duration) error {
	return inTime(func(attempt string) (time.Time, error) {
		s, e := begin(ctx, "lease ends/"+attempt), engines[0]
		sent := time.Now()
		l := s.grant(e, ttl)
		s.put(e, "leased/1", "1", l)
		s.put(e, "leased/2", "2", l)
		s.put(e, "stays", "3", 0)
		s.put(e, "leased/3", "4", l)
		start := s.put(e, "leased/3", "5", 0) // no longer under it
		got := s.watch(engines[len(engines)-1], "leased/", start, 2)
		s.that(time.Since(sent) >= ttl, "a lease of %v ended %v after it was asked for", ttl, time.Since(sent))
		for i := range got {
			_, got[i], _ = strings.Cut(got[i], ": ")
		}
		slices.Sort(got)
		s.that(slices.Equal(got, []string{"leased/1 deleted", "leased/2 deleted"}), "watched %q", got)
		left := s.list(e, "")
		s.that(len(left.Entries) == 2, "left is %+v", left.Entries)
		if s.err == nil {
			if err := e.Renew(ctx, l); !errors.Is(err, hosts.ErrNoLease) {
				return sent, fmt.Errorf("renewal of a lease that has ended: %w", err)
			}
		}
		return sent, s.err
	}, ttl)
}

// checkLeaseLasts: a lease that is renewed lasts, and no shorter than its time from when the last
// renewal was sent.
func checkLeaseLasts(ctx context.Context, engines []hosts.Engine, ttl time.Duration) error {
	return inTime(func(attempt string) (time.Time, error) {
		s, e := begin(ctx, "lease lasts/"+attempt), engines[0]
		sent := time.Now()
		l := s.grant(e, ttl)
		s.put(e, "k", "1", l)
		for begun := sent; time.Since(begun) < 2*ttl && s.err == nil; {
			select {
			case <-time.After(ttl / 5):
			case <-ctx.Done():
				return sent, ctx.Err()
			}
			at := time.Now()
			if err := e.Renew(ctx, l); err != nil {
				return sent, err
			}
			sent = at
			if len(s.list(engines[len(engines)-1], "k").Entries) == 0 {
				s.that(false, "the entry is gone: %w", hosts.ErrNoLease)
			}
		}
		return sent, s.err
	}, ttl)
}

func checkRevoke(ctx context.Context, engines []hosts.Engine, _ time.Duration) error {
	s, e := begin(ctx, "revoke"), engines[0]
	l := s.grant(e, time.Minute)
	start := s.put(e, "k", "1", l)
	other := engines[len(engines)-1]
	if s.err == nil {
		s.try(other.Revoke(ctx, l))
	}
	s.that(len(s.list(e, "").Entries) == 0, "the entry of a revoked lease is there")
	got := s.watch(e, "", start, 1)
	s.that(len(got) == 1 && strings.HasSuffix(got[0], ": k deleted"), "watched %q", got)
	if s.err == nil {
		s.try(e.Revoke(ctx, l)) // is no error
		err := e.Renew(ctx, l)
		s.that(errors.Is(err, hosts.ErrNoLease), "renewal of a revoked lease: %v", err)
	}
	return s.err
}

// checkNoLease: nothing is done under a lease that has ended, not even what has no lease.
func checkNoLease(ctx context.Context, engines []hosts.Engine, _ time.Duration) error {
	s, e := begin(ctx, "no lease"), engines[0]
	l := s.grant(e, time.Minute)
	if s.err == nil {
		s.try(e.Revoke(ctx, l))
	}
	if s.err == nil {
		_, err := e.Commit(ctx, hosts.Txn{Then: []hosts.Op{{Key: s.key + "a"}, {Key: s.key + "b", Lease: l}}})
		s.that(errors.Is(err, hosts.ErrNoLease), "a put under a lease that has ended: %v", err)
	}
	s.that(len(s.list(e, "").Entries) == 0, "a put under a lease that has ended has done something")
	return s.err
}

func checkContext(ctx context.Context, engines []hosts.Engine, _ time.Duration) error {
	s, e := begin(ctx, "context"), engines[0]
	over, cancel := context.WithCancel(ctx)
	cancel()
	_, err := e.Commit(over, hosts.Txn{Then: []hosts.Op{{Key: s.key + "k"}}})
	s.that(errors.Is(err, context.Canceled) || errors.Is(err, hosts.ErrUnavailable), "commit: %v", err)
	_, err = e.List(over, s.key)
	s.that(errors.Is(err, context.Canceled) || errors.Is(err, hosts.ErrUnavailable), "list: %v", err)
	_, err = e.Grant(over, time.Minute)
	s.that(errors.Is(err, context.Canceled) || errors.Is(err, hosts.ErrUnavailable), "grant: %v", err)
	return s.err
}
