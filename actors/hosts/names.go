package hosts

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts/internal/lease"
)

var (
	// ErrLost is the cause of the end of Holding.Context: the name is another's soon, or may be.
	ErrLost = errors.New("name of the cluster lost")
	// ErrReleased is the cause of the end of Holding.Context after Release.
	ErrReleased = errors.New("name of the cluster released")
	// ErrNamesClosed says that Names.Close was called.
	ErrNamesClosed = errors.New("names closed")
)

// The bounds of a session's lease, and its default.
const (
	MinLease     = time.Second
	MaxLease     = time.Hour
	DefaultLease = 5 * time.Second
	// MaxHolding is the most bytes of what a holder tells of itself.
	MaxHolding = 4096
	// MaxNames is the most names that one host holds or wants.
	MaxNames = 65536
)

// A NamesConfig says who a host is. Its zero value is not usable: Cluster and Host are needed.
type NamesConfig struct {
	// Cluster and Host are names (CheckName), without a slash. Hosts of one cluster have different
	// names.
	Cluster, Host string
	// Boot names this start of the host in the whole world; "": one is drawn.
	Boot string
	// Lease is for how long the engine keeps what this host holds when it does not hear of it;
	// MinLease to MaxLease, zero: DefaultLease. An owner that is gone is replaced after it.
	Lease time.Duration
	// Margin is by how much earlier what is owned here is told to stop: what it takes to stop has
	// to fit. 50 ms to a half of Lease; zero: a tenth of Lease, and 250 ms at least.
	Margin time.Duration
	// Before is the lease of the session before, of a process that is known to be dead: it is ended
	// at once in place of being waited for. 0: none is known.
	Before Lease

	key   string                   // of the session's entry; "": that of the host
	owner string                   // "": one is drawn
	shown func(gone, made []Entry) // what the watch shows, after the view has it; may be nil
}

// Names is a host's session with an engine: it registers names of the cluster for this host, tells
// in time that they are lost, and knows who holds the others. It belongs to one process, which is
// the one that has to stop what it owns: a process that is stopped itself (SIGSTOP) cannot. Its
// methods may be called concurrently.
type Names struct {
	engine Engine
	cfg    NamesConfig
	clock  clock
	root   string
	owner  string         // drawn; in all entries of this Names
	lock   *os.File       // held while this process lives; nil: none
	system *actors.System // whose actors it registers; nil: none
	events chan func()    // done by the loop
	done   chan struct{}
	ctx    context.Context // of calls and the watch; ends with the loop
	cancel context.CancelFunc
	tasks  sync.WaitGroup // calls and the watch
	view   *clusterView

	// Of the loop's goroutine.
	machine  *lease.State
	wishes   map[string]*wish
	freeing  map[string]*wish // given back, and not known to be free
	watchdog alarm
	wake     alarm

	mu      sync.Mutex
	armed   lease.Time          // when the watchdog ends what is held; 0: never
	held    map[string]*Holding // that the watchdog ends
	session SessionState
	failure error         // of the last call of the engine; nil: it has answered
	changed chan struct{} // closed when session changes
}

// A SessionState is the state of a host's session.
type SessionState struct {
	Live  bool
	Lease Lease     // the last one's
	Boot  string    // of this host
	Since time.Time // when Live last changed; zero: never
	// Err says why it is not live, as far as that is known: actors.ErrNameTaken while another host
	// has this one's name.
	Err error
}

// A wish is a Register under way, and then what it got.
type wish struct {
	name    string
	value   []byte
	pid     *actor.PID // of whom the name is; nil: it stands for no actor
	holding *Holding
	answer  chan error // has room for one: nil with holding set
	freed   []chan error
}

// A Holding is a name that this host holds. It is released by Release, exactly once for each, also
// when Context has ended.
type Holding struct {
	names  *Names
	wish   *wish
	fence  Fence
	ctx    context.Context
	cancel context.CancelCauseFunc
	freed  chan struct{} // closed when it is released here
	end    lease.Time    // when another may act, from the end of ctx on; before the cancel
}

// NewNames begins a session, and returns at once: names are registered when the engine is reached.
// It takes ownership of the goroutines that it starts, until Close; e stays the caller's to close,
// after that.
func NewNames(e Engine, cfg NamesConfig) (*Names, error) {
	return newNames(e, cfg, clock{now: boottime, alarm: newBootAlarm})
}

func (cfg *NamesConfig) validate() error {
	var errs []error
	for _, f := range []struct{ field, name string }{{"Cluster", cfg.Cluster}, {"Host", cfg.Host}} {
		if err := checkPart(f.name); err != nil {
			errs = append(errs, fmt.Errorf("NamesConfig.%s: %w", f.field, err))
		}
	}
	if cfg.Lease == 0 {
		cfg.Lease = DefaultLease
	}
	if cfg.Lease < MinLease || cfg.Lease > MaxLease {
		errs = append(errs, fmt.Errorf("NamesConfig.Lease: %v is not between %v and %v", cfg.Lease, MinLease, MaxLease))
	}
	if cfg.Margin == 0 {
		cfg.Margin = lease.Margin(cfg.Lease)
	}
	if cfg.Margin < 50*time.Millisecond || cfg.Margin > cfg.Lease/2 {
		errs = append(errs, fmt.Errorf("NamesConfig.Margin: %v is not between 50ms and %v, a half of Lease", cfg.Margin, cfg.Lease/2))
	}
	if cfg.Boot == "" {
		cfg.Boot = rand.Text()[:12]
	} else if len(cfg.Boot) > MaxName {
		errs = append(errs, fmt.Errorf("NamesConfig.Boot: longer than %d bytes", MaxName))
	}
	return errors.Join(errs...)
}

func newNames(e Engine, cfg NamesConfig, c clock) (*Names, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("hosts: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	owner := cfg.owner
	if owner == "" {
		owner = rand.Text()
	}
	if cfg.key == "" {
		cfg.key = "hosts/" + cfg.Host
	}
	n := &Names{
		owner:  owner,
		engine: e, cfg: cfg, clock: c, root: "coppice/" + cfg.Cluster + "/",
		events: make(chan func()), done: make(chan struct{}), ctx: ctx, cancel: cancel,
		machine: lease.New(lease.Config{TTL: cfg.Lease, Margin: cfg.Margin, Owner: owner, Before: int64(cfg.Before)}),
		wishes:  make(map[string]*wish), freeing: make(map[string]*wish), held: make(map[string]*Holding), changed: make(chan struct{}),
		session: SessionState{Boot: cfg.Boot}, view: newView(),
	}
	var err error
	if n.watchdog, err = c.alarm(n.expire); err != nil {
		cancel()
		return nil, err
	}
	wakes := make(chan struct{}, 1)
	n.wake, err = c.alarm(func() {
		select {
		case wakes <- struct{}{}:
		default:
		}
	})
	if err != nil {
		n.watchdog.stop()
		cancel()
		return nil, err
	}
	n.tasks.Go(n.watch) // until ctx ends
	go n.run(wakes)     // until the machine has ended; Close waits for it
	return n, nil
}

// run is the loop, which alone steps the machine. It makes no call and waits for nobody.
func (n *Names) run(wakes <-chan struct{}) {
	over := n.step(lease.Event{Kind: lease.Wake})
	for !over {
		select {
		case do := <-n.events:
			do()
		case <-wakes:
			n.step(lease.Event{Kind: lease.Wake})
		}
		over = n.machine == nil
	}
	n.cancel()
	close(n.done)
	n.tasks.Wait()
	n.watchdog.stop() // which sets the other
	n.wake.stop()
}

// post has the loop do something; false: it has ended.
func (n *Names) post(do func()) bool {
	select {
	case n.events <- do:
		return true
	case <-n.done:
		return false
	}
}

// step applies an event, does what is to be done, and reports whether all has ended.
func (n *Names) step(ev lease.Event) bool {
	if n.machine == nil {
		return true
	}
	ended := false
	for _, e := range n.machine.Step(n.clock.now(), ev) {
		ended = n.do(e) || ended
	}
	if ended {
		n.machine = nil
		for _, all := range []map[string]*wish{n.wishes, n.freeing} {
			for name, w := range all {
				n.settle(w, ErrNamesClosed)
				delete(all, name)
			}
		}
		return true
	}
	at, ok := n.machine.Next()
	if !ok {
		at = 0
	}
	n.wake.set(at)
	return false
}

// do does what the machine says, and reports whether it was its last word.
func (n *Names) do(e lease.Effect) bool {
	switch e.Kind {
	case lease.Grant, lease.Enter, lease.Renew, lease.Revoke, lease.Claim, lease.Delete:
		var value []byte
		var pid *actor.PID
		if w := n.wishes[e.Name]; w != nil {
			value, pid = w.value, w.pid
		}
		n.tasks.Go(func() { // ends with its context
			ctx, cancel := context.WithTimeout(n.ctx, n.cfg.Lease/3)
			defer cancel()
			ev := n.call(ctx, e, value, pid)
			n.post(func() { n.step(ev) })
		})
	case lease.Arm:
		n.arm(e.At)
	case lease.Disarm:
		n.arm(0)
	case lease.Own:
		n.own(e)
	case lease.Stop:
		n.mu.Lock()
		h := n.held[e.Name]
		delete(n.held, e.Name)
		n.mu.Unlock()
		if h != nil {
			h.lose(e.At)
		}
	case lease.Answer:
		n.answer(e)
	case lease.Report:
		n.report(e)
	case lease.End:
		return true
	}
	return false
}

// arm moves the watchdog. It waits for nothing and nobody: what is held ends when its time has
// come, whatever the loop and the calls to the engine do.
func (n *Names) arm(at lease.Time) {
	n.mu.Lock()
	n.armed = at
	n.mu.Unlock()
	n.watchdog.set(at)
}

// expire is called by the watchdog's own goroutine.
func (n *Names) expire() {
	n.mu.Lock()
	armed := n.armed
	var ended []*Holding
	if n.armed != 0 && n.clock.now() >= n.armed {
		for name, h := range n.held {
			ended = append(ended, h)
			delete(n.held, name)
		}
	}
	n.mu.Unlock()
	for _, h := range ended {
		h.lose(armed)
	}
	n.wake.set(1) // the machine says the rest
}

func (n *Names) own(e lease.Effect) {
	w := n.wishes[e.Name] // there, or the machine would have been told to drop it
	h := &Holding{names: n, wish: w, fence: Fence{Name: e.Name, Number: e.Revision}, freed: make(chan struct{})}
	h.ctx, h.cancel = context.WithCancelCause(WithFence(context.Background(), h.fence))
	w.holding = h
	n.mu.Lock()
	if n.armed == 0 || n.clock.now() >= n.armed {
		h.lose(n.armed)
	} else {
		n.held[e.Name] = h
	}
	n.mu.Unlock()
	w.answer <- nil
}

func (n *Names) answer(e lease.Effect) {
	of := n.wishes
	if e.Outcome == lease.Freed || e.Outcome == lease.Lost {
		of = n.freeing
	}
	w := of[e.Name]
	if w == nil {
		return
	}
	delete(of, e.Name)
	switch e.Outcome {
	case lease.Taken:
		n.settle(w, fmt.Errorf("hosts: %q: %w", w.name, actors.ErrNameTaken))
	case lease.Doubted:
		n.settle(w, fmt.Errorf("hosts: %q: %w; a claim without an answer may have had it: %w", w.name, actors.ErrNameTaken, ErrUnavailable))
	case lease.Closing:
		n.settle(w, fmt.Errorf("hosts: %q: %w", w.name, ErrNamesClosed))
	case lease.Lost:
		n.settle(w, fmt.Errorf("hosts: release %q: %w", w.name, ErrLost))
	case lease.Freed, lease.Live:
		n.settle(w, nil)
	}
}

// settle tells who waits for a wish that it is over. Who gives back what was known to be lost has
// nothing to hear.
func (n *Names) settle(w *wish, err error) {
	if w.holding == nil && err != nil {
		w.answer <- err
	}
	if !errors.Is(err, ErrLost) || !errors.Is(context.Cause(w.holding.ctx), ErrReleased) {
		err = nil
	}
	for _, freed := range w.freed {
		freed <- err
	}
	w.freed = nil
}

func (n *Names) report(e lease.Effect) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := SessionState{Boot: n.cfg.Boot, Lease: n.session.Lease, Since: n.session.Since}
	switch e.Outcome {
	case lease.Live:
		s.Live, s.Lease = true, Lease(e.Lease)
	case lease.Taken:
		s.Err = fmt.Errorf("hosts: host %q of boot %s is in the cluster: %w", n.cfg.Host, e.Boot, actors.ErrNameTaken)
	case lease.Lost, lease.Closing, lease.Freed, lease.Doubted:
		s.Err = n.whyLocked()
	}
	if s.Live != n.session.Live || n.session.Since.IsZero() {
		s.Since = time.Now()
	}
	n.session = s
	close(n.changed)
	n.changed = make(chan struct{})
}

// failed keeps what a call of the engine has come to.
func (n *Names) failed(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	first := n.failure == nil && err != nil
	if n.failure = err; first && !n.session.Live { // wakes those that wait for the session
		close(n.changed)
		n.changed = make(chan struct{})
	}
}

// whyLocked returns ErrUnavailable, with the last error of the engine if there is one.
func (n *Names) whyLocked() error {
	switch {
	case n.failure == nil:
		return ErrUnavailable
	case errors.Is(n.failure, ErrUnavailable):
		return n.failure
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, n.failure)
}

func (n *Names) why() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.whyLocked()
}

// Session returns the session's state.
func (n *Names) Session() SessionState {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.session
	if !s.Live && (s.Err == nil || errors.Is(s.Err, ErrUnavailable)) && n.failure != nil {
		s.Err = n.whyLocked()
	}
	return s
}

// WaitLive waits until the session is live. When ctx ends first it returns the error of ctx, and
// what Session.Err says, or ErrUnavailable.
func (n *Names) WaitLive(ctx context.Context) error {
	for {
		n.mu.Lock()
		s, changed := n.session, n.changed
		n.mu.Unlock()
		if s.Live {
			return nil
		}
		select {
		case <-changed:
		case <-n.done:
			return fmt.Errorf("hosts: wait for the session: %w", ErrNamesClosed)
		case <-ctx.Done():
			if s = n.Session(); s.Err == nil {
				s.Err = ErrUnavailable
			}
			return fmt.Errorf("hosts: wait for the session: %w: %w", context.Cause(ctx), s.Err)
		}
	}
}

// Register takes a name of the cluster for this host, and waits for the engine if need be. value is
// what Lookup tells of the holder, at most MaxHolding bytes; it is borrowed until the return.
// Errors: actors.ErrNameTaken if another holds the name, or this host does or is about to;
// actors.ErrName; actors.ErrTooMany; ErrNamesClosed; when ctx ends first its error and
// ErrUnavailable: then the name is not held, and an entry that the engine may yet make is deleted.
// ErrUnavailable beside actors.ErrNameTaken says that too: others may have been refused because of
// such an entry.
func (n *Names) Register(ctx context.Context, name string, value []byte) (*Holding, error) {
	return n.register(ctx, name, value, nil)
}

// RegisterActor is Register for an actor of this process, whose PID hosts.Lookup of the name stands
// for, on all hosts. When the actor ends, the name is given back. It is for the Names of
// Config.Names.
func (n *Names) RegisterActor(ctx context.Context, name string, pid *actor.PID) (*Holding, error) {
	if n.system == nil || pid == nil || pid.Address != n.system.Address() {
		return nil, fmt.Errorf("hosts: register %q: %v is no actor of this process: %w", name, pid, actors.ErrNoActor)
	}
	m := n.system.Monitor(pid)
	h, err := n.register(ctx, name, nil, pid)
	if err != nil {
		m.Cancel()
		return nil, err
	}
	go func() { // until the actor has ended, the name is given back, or all is over
		select {
		case <-m.C:
			_ = h.Release(n.ctx)
		case <-h.freed:
			m.Cancel()
		case <-n.done:
			m.Cancel()
		}
	}()
	return h, nil
}

func (n *Names) register(ctx context.Context, name string, value []byte, pid *actor.PID) (*Holding, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if len(value) > MaxHolding {
		return nil, fmt.Errorf("hosts: %q: a value of %d bytes, and %d are the most", name, len(value), MaxHolding)
	}
	w := &wish{name: name, pid: pid, value: append([]byte(nil), value...), answer: make(chan error, 1)}
	posted := n.post(func() {
		switch {
		case n.wishes[name] != nil:
			w.answer <- fmt.Errorf("hosts: %q: by this host: %w", name, actors.ErrNameTaken)
		case len(n.wishes)+len(n.freeing) >= MaxNames:
			w.answer <- fmt.Errorf("hosts: %q: %d names: %w", name, MaxNames, actors.ErrTooMany)
		default:
			n.wishes[name] = w
			n.step(lease.Event{Kind: lease.Want, Name: name})
		}
	})
	if !posted {
		return nil, fmt.Errorf("hosts: %q: %w", name, ErrNamesClosed)
	}
	select {
	case err := <-w.answer:
		return w.holding, err
	case <-ctx.Done():
		n.post(func() { n.drop(w) })
		return nil, fmt.Errorf("hosts: register %q: %w: %w", name, context.Cause(ctx), n.why())
	}
}

// drop ends a wish: nobody waits for it, or what it was for has stopped.
func (n *Names) drop(w *wish) {
	if n.freeing[w.name] == w {
		return // the first one's answer is for all
	}
	if n.wishes[w.name] != w {
		for _, freed := range w.freed {
			freed <- nil
		}
		w.freed = nil
		return
	}
	delete(n.wishes, w.name)
	if w.holding != nil { // else no Answer comes
		n.freeing[w.name] = w
		n.mu.Lock()
		delete(n.held, w.name)
		n.mu.Unlock()
		w.holding.cancel(ErrReleased)
		close(w.holding.freed)
	}
	n.step(lease.Event{Kind: lease.Drop, Name: w.name})
}

// lose ends what the name is for, which was to be told at at, and has Margin from then on.
func (h *Holding) lose(at lease.Time) {
	h.end = at + lease.Time(h.names.cfg.Margin)
	h.cancel(ErrLost)
}

// Fence returns the number of this holding.
func (h *Holding) Fence() Fence { return h.fence }

// Context returns a context with the fence (FenceOf) that ends when what the name is for must stop:
// Margin before the engine may give the name to another, with the cause ErrLost.
func (h *Holding) Context() context.Context { return h.ctx }

// Release gives the name back. It is called when what the name was for has stopped, not before:
// from then on another host may act. It waits until the engine has freed the name; when ctx ends
// first its error comes, and the name is freed when the engine can be reached, or with the session.
// ErrLost: the session has ended before, though Context had not: the name is free when its lease
// has ended, or was free already. A second call is no error, nor one when Context has ended by
// ErrLost.
func (h *Holding) Release(ctx context.Context) error {
	freed := make(chan error, 1)
	if !h.names.post(func() {
		h.wish.freed = append(h.wish.freed, freed)
		h.names.drop(h.wish)
	}) {
		return nil
	}
	select {
	case err := <-freed:
		return err
	case <-h.names.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("hosts: release %q: %w: %w", h.fence.Name, context.Cause(ctx), ErrUnavailable)
	}
}

// Close refuses new names, ends the contexts of all holdings, waits for their Release, and ends the
// session, so that others need not wait for it. When ctx ends first it returns its error and waits
// no more: the lease is left to end by itself, as what it guards may still run.
func (n *Names) Close(ctx context.Context) error {
	n.post(func() { n.step(lease.Event{Kind: lease.Close}) })
	var err error
	select {
	case <-n.done:
	case <-ctx.Done():
		err = fmt.Errorf("hosts: close: %w", context.Cause(ctx))
		n.post(func() { n.step(lease.Event{Kind: lease.Abort}) })
		<-n.done
	}
	n.tasks.Wait()
	return err
}

// hostValue and holderValue are the values of entries, as JSON so that etcdctl shows them.
type hostValue struct {
	Host  string    `json:"host"`
	Owner string    `json:"owner"` // Names.owner
	Boot  string    `json:"boot"`
	Since time.Time `json:"since"` // by the clock of its host: to be shown, not compared
}

type holderValue struct {
	Host  string `json:"host"`
	Owner string `json:"owner"` // Names.owner
	Boot  string `json:"boot"`
	Token uint64 `json:"token"`
	Value []byte `json:"value,omitempty"`

	Address string `json:"address,omitempty"` // and ID: of the actor
	ID      string `json:"id,omitempty"`
}

func (n *Names) hostKey() string            { return n.root + n.cfg.key }
func (n *Names) nameKey(name string) string { return n.root + "names/" + name }

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // the types are ours
	}
	return b
}

// call makes the call of an effect, and returns the event that answers it.
func (n *Names) call(ctx context.Context, e lease.Effect, value []byte, pid *actor.PID) lease.Event {
	ev := lease.Event{Name: e.Name, Lease: e.Lease, Token: e.Token, Revision: e.Revision, Sent: e.Sent}
	var err error
	switch e.Kind {
	case lease.Grant:
		var l Lease
		l, err = n.engine.Grant(ctx, n.cfg.Lease)
		ev.Kind, ev.Lease = lease.Granted, int64(l)
	case lease.Renew:
		ev.Kind, err = lease.Renewed, n.engine.Renew(ctx, Lease(e.Lease))
	case lease.Revoke:
		ev.Kind, err = lease.Revoked, n.engine.Revoke(ctx, Lease(e.Lease))
	case lease.Enter:
		ev, err = n.enter(ctx, ev)
	case lease.Claim:
		ev, err = n.claim(ctx, ev, e.Entered, value, pid)
	case lease.Delete:
		k := n.nameKey(e.Name)
		ev.Kind = lease.Deleted
		_, err = n.engine.Commit(ctx, Txn{If: []Cond{{Key: k, Created: e.Revision}}, Then: []Op{{Key: k, Delete: true}}})
	default:
	}
	if n.ctx.Err() == nil && !errors.Is(err, ErrNoLease) {
		n.failed(err)
	}
	switch {
	case errors.Is(err, ErrNoLease):
		ev.Kind, ev.Lease = lease.Gone, e.Lease
	case err != nil:
		ev.Kind, ev.Of = lease.Failed, e.Kind
	}
	return ev
}

func (n *Names) enter(ctx context.Context, ev lease.Event) (lease.Event, error) {
	k := n.hostKey()
	res, err := n.engine.Commit(ctx, Txn{
		If:   []Cond{{Key: k}},
		Then: []Op{{Key: k, Value: mustJSON(hostValue{Host: n.cfg.Host, Owner: n.owner, Boot: n.cfg.Boot, Since: time.Now().UTC()}), Lease: Lease(ev.Lease)}},
		Read: []string{k},
	})
	if err != nil || len(res.Entries) != 1 {
		return ev, err
	}
	if ev.Kind = lease.Entered; !res.Done {
		var r hostValue
		_ = json.Unmarshal(res.Entries[0].Value, &r) // what is not ours bars us all the same
		ev.Kind, ev.Owner, ev.Boot, ev.Other = lease.Barred, r.Owner, r.Boot, int64(res.Entries[0].Lease)
	}
	ev.Revision = res.Entries[0].Created
	return ev, nil
}

func (n *Names) claim(ctx context.Context, ev lease.Event, entered uint64, value []byte, pid *actor.PID) (lease.Event, error) {
	k := n.nameKey(ev.Name)
	record := holderValue{Host: n.cfg.Host, Owner: n.owner, Boot: n.cfg.Boot, Token: ev.Token, Value: value, Address: pid.GetAddress(), ID: pid.GetId()}
	res, err := n.engine.Commit(ctx, Txn{
		If:   []Cond{{Key: n.hostKey(), Created: entered}, {Key: k}},
		Then: []Op{{Key: k, Value: mustJSON(record), Lease: Lease(ev.Lease)}},
		Read: []string{n.hostKey(), k},
	})
	if err != nil {
		return ev, err
	}
	ours := false
	for _, e := range res.Entries {
		switch e.Key {
		case n.hostKey():
			ours = e.Created == entered
		case k:
			var r holderValue
			_ = json.Unmarshal(e.Value, &r) // what is not ours holds the name all the same
			ev.Kind, ev.Revision, ev.Other, ev.Owner = lease.Refused, e.Created, int64(e.Lease), r.Owner
			if r.Token == ev.Token && r.Owner == n.owner && ev.Other == ev.Lease {
				ev.Kind = lease.Claimed
			}
		}
	}
	if !ours {
		return ev, ErrNoLease
	}
	return ev, nil
}
