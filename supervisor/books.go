package supervisor

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coppice-go/coppice/supervisor/internal/rules"
)

// A Book is what a supervisor remembers of its children's failures. When a program is replaced in
// its process, by execve(2), and its children live on, the supervisors of the new image go on with
// the books of those before them: see Config.Books. It is plain data.
//
// Moments are counted from Epoch, and zero is none.
type Book struct {
	Epoch    time.Duration   // by a clock that goes on over an exec, as CLOCK_MONOTONIC
	Began    time.Duration   // when the supervisor was started
	Restarts []time.Duration // in the period of its Intensity, oldest first; the latest 4,096
	LastUp   time.Duration   // the latest end of a child that was up
	Children []ChildBook     // in start order
}

// A ChildBook is the part of a Book about one child.
type ChildBook struct {
	ID          string
	Status      Status // Down, Running or Restarting
	Incarnation uint64
	Since       time.Duration // of Status
	Began       time.Duration // when the latest instance, or start, began
	Due         time.Duration // Restarting: when its delay ends
	Counted     bool          // Restarting: that attempt is in Restarts
	Failures    int           // consecutive
	Bound       time.Duration // the latest delay of its Backoff, before jitter: a span, not a moment
	Ended       bool          // an instance has ended, as LastExit says
	LastExit    PastReason
	StartError  string // of the latest start
}

// A PastReason is a [Reason] as plain data: errors and values are their texts, of at most [MaxText]
// bytes each.
type PastReason struct {
	Kind                        ReasonKind
	Detail, Cause, Value, Stack string
	Code, Signal                int
	Core                        bool
}

// Past returns r as plain data.
func (r Reason) Past() PastReason {
	p := PastReason{Kind: r.Kind, Detail: Cut(r.Detail), Stack: Cut(r.Stack), Code: r.Code, Signal: r.Signal, Core: r.Core}
	if r.Cause != nil {
		p.Cause = Cut(r.Cause.Error())
	}
	if r.Value != nil {
		p.Value = Cut(fmt.Sprint(r.Value))
	}
	return p
}

// Reason returns the reason that p was made of, with texts for its errors and values.
func (p PastReason) Reason() Reason {
	r := Reason{Kind: p.Kind, Detail: p.Detail, Stack: p.Stack, Code: p.Code, Signal: p.Signal, Core: p.Core}
	if p.Cause != "" {
		r.Cause = errors.New(p.Cause)
	}
	if p.Kind == Panic {
		r.Value = p.Value
	}
	return r
}

// maxBookRestarts bounds Book.Restarts.
const maxBookRestarts = 4096

// tree is what the supervisors of a tree share.
type tree struct {
	mu      sync.Mutex
	running map[string]*Supervisor // by path
	books   map[string]Book        // those of Config that no supervisor has taken yet
}

func (t *tree) add(s *Supervisor) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running[s.path] = s
}

func (t *tree) remove(s *Supervisor) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running[s.path] == s {
		delete(t.running, s.path)
	}
}

// take takes the book for a supervisor that is about to begin, whose clock it sets back by the age
// of the book; nil if there is none.
func (t *tree) take(s *Supervisor) *Book {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, ok := t.books[s.path]
	delete(t.books, s.path) // one that is restarted begins anew
	age := s.cfg.sinceBoot() - b.Epoch
	if !ok || age < 0 { // of another boot
		return nil
	}
	s.epoch = s.epoch.Add(-age)
	return &b
}

// below returns the supervisors at path and below it, those above others first.
func (t *tree) below(path string) (all []*Supervisor) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range slices.Sorted(maps.Keys(t.running)) {
		if p == path || strings.HasPrefix(p, path+"/") {
			all = append(all, t.running[p])
		}
	}
	return all
}

// Books returns the books of this supervisor and of those below it, by path, for Config.Books of
// another image of the program. What a supervisor was told before is in its book. It does not wait
// for a child.
//
// Errors: ErrStopped if one is ending; and an error that names what is under way, a start, a stop
// or the restart of a group, of which no book tells. A child that waits for its restart is no
// hindrance.
func (s *Supervisor) Books() (map[string]Book, error) {
	books := make(map[string]Book)
	for _, b := range s.tree.below(s.path) {
		var book Book
		err := error(ErrStopped)
		done := make(chan struct{})
		if b.inbox.post(message{do: func() { book, err = b.loop.write(); close(done) }}) {
			<-done // finish does what is left in the inbox
		}
		if err != nil {
			return nil, s.callError("Books", "", err)
		}
		books[b.path] = book
	}
	if len(books) == 0 {
		return nil, s.callError("Books", "", ErrStopped)
	}
	return books, nil
}

// write returns the book of the supervisor.
func (l *loop) write() (Book, error) {
	st, s := l.state, l.s
	switch st.Work {
	case rules.StopWork, rules.Ended:
		return Book{}, ErrStopped
	case rules.Fresh, rules.InitWork:
		return Book{}, fmt.Errorf("%s is %v", s.path, Starting)
	case rules.Group, rules.Idle:
	}
	b := Book{
		Epoch: s.cfg.sinceBoot() - l.now.Sub(s.epoch), Began: l.moment(l.began), LastUp: time.Duration(st.LastUp),
	}
	for _, at := range st.Window[max(0, len(st.Window)-maxBookRestarts):] {
		b.Restarts = append(b.Restarts, time.Duration(at))
	}
	for _, key := range st.Order.Keys {
		c, child := st.Children[key], l.children[key]
		if c == nil {
			continue
		}
		now := status(st, c)
		if st.Work == rules.Group || now == Starting || now == Stopping || now == Restarting && c.Phase != rules.Waiting {
			return Book{}, fmt.Errorf("%s is %v", child.path, now)
		}
		v := ChildBook{
			ID: child.spec.ID, Status: now, Incarnation: c.Inc, Since: l.moment(child.since), Began: l.moment(child.began),
			Due: time.Duration(c.At), Counted: c.Counted, Failures: c.Failures, Bound: c.Bound, Ended: child.exited,
		}
		if now != child.status {
			v.Since = l.moment(l.now)
		}
		if child.exited {
			v.LastExit = child.reason.Past()
		}
		if child.startErr != nil {
			v.StartError = Cut(child.startErr.Error())
		}
		b.Children = append(b.Children, v)
	}
	return b, nil
}

// moment returns a time as books have it.
func (l *loop) moment(t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return time.Duration(l.s.rulesTime(t))
}

// past is the reverse of moment. What a book says of the future is now.
func (l *loop) past(d time.Duration) rules.Time { return min(max(0, rules.Time(d)), l.rulesNow()) }

// recall enters the book of the supervisor before this one into the new state.
func (l *loop) recall() {
	b := l.s.book
	if b == nil {
		return
	}
	for _, at := range b.Restarts {
		l.state.Window = append(l.state.Window, l.past(at))
	}
	slices.Sort(l.state.Window)
	l.state.LastUp = l.past(b.LastUp)
	l.books = make(map[string]*ChildBook, len(b.Children))
	for i := range b.Children {
		l.books[b.Children[i].ID] = &b.Children[i]
	}
}

// recallChild enters what the book says of a child into its new records.
func (l *loop) recallChild(child *childRecord) {
	was, c := l.books[child.spec.ID], l.state.Children[child.key]
	if was == nil {
		return
	}
	delete(l.books, child.spec.ID)
	child.book = was
	c.Inc, c.Failures, c.Bound = was.Incarnation, max(0, was.Failures), min(max(0, was.Bound), l.state.Flags.Backoff.Max)
	if was.Status == Running && c.Inc > 0 {
		c.Inc-- // its start makes it the same again
	}
	if child.exited = was.Ended; was.Ended {
		child.reason = was.LastExit.Reason()
	}
}

// goOn makes a child that has come up the one that ran before, as far as its book says so.
func (l *loop) goOn(child *childRecord) {
	if child == nil || child.book == nil {
		return
	}
	if c := l.state.Children[child.key]; child.book.Status == Running && c != nil && c.Phase == rules.Running {
		c.UpSince = l.past(child.book.Began)
		child.began = l.s.timeOf(c.UpSince)
		l.sinceBefore(child)
	}
	child.book = nil
}

// sinceBefore makes the status of a child that of its book, which it has again.
func (l *loop) sinceBefore(child *childRecord) {
	child.status, child.since = child.book.Status, l.s.timeOf(l.past(child.book.Since))
	l.markDirty(child)
}

// Resume ends the time in which the supervisors of a new image of the program only take over. Each
// child that waited for its restart, as Config.Books says, and is down, since its Start has
// returned [ErrIgnore], waits for it again, until the moment that was set. Resume does not wait.
func (s *Supervisor) Resume() {
	for _, b := range s.tree.below(s.path) {
		b.inbox.post(message{do: b.loop.resume})
	}
}

func (l *loop) resume() {
	for _, key := range slices.Clone(l.state.Order.Keys) {
		child := l.children[key]
		if child == nil || child.book == nil {
			continue
		}
		if b := child.book; b.Status == Restarting {
			at := min(max(0, rules.Time(b.Due)), l.rulesNow()+rules.Time(l.state.Flags.Backoff.Max))
			l.step(rules.Event{Kind: rules.Await, Key: key, At: at, Counted: b.Counted})
		}
		if status(l.state, l.state.Children[key]) == child.book.Status {
			l.sinceBefore(child)
			if e := child.book.StartError; e != "" {
				child.startErr = errors.New(e)
			}
		}
		child.book = nil
	}
	l.books = nil
}
