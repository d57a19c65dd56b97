package coppice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
)

// crew is the workers of one running pool, those included that have no slot: it
// drives the rules of internal/pool, and decides nothing. The listener process is a
// crew of one.
type crew struct {
	rt    *Runtime
	path  string // of the pool in the tree
	role  role
	pool  Pool // complete
	began time.Time
	limit context.Context // ends with the pool: what is being brought up is given up
	end   context.CancelFunc

	mu       sync.Mutex
	rules    *pool.State
	todo     []pool.Effect
	busy     bool              // somebody works on todo
	turns    []chan<- struct{} // closed by the effects turn, in order
	members  map[pool.WorkerSeq]*member
	seats    map[int]*seat                            // the supervisor's latest instance of each slot
	starts   map[int][]chan<- started                 // the supervisor's starts that wait
	counts   map[int]int                              // workers that each slot has had
	answers  map[pool.EffectKind][]chan<- pool.Effect // Rolled and Scaled, in the order asked
	alarm    *time.Timer
	sup      *supervisor.Supervisor  // nil until it is up
	notes    []note                  // what happened before
	rolling  int                     // the generation of the roll that goes on; 0 = none
	fallen   map[pool.WorkerSeq]*member // of rolling, ended: one of them may be why it fails
	tellings map[int]time.Time       // when a slot's worker was told to end by a signal
	unscaled error                   // why the latest slot that was added did not come up

	generation atomic.Int64 // that all slots have, or are to have

	supplied chan struct{} // closed when sup is set
	gone     chan struct{} // closed when the pool has stopped and no worker is left
}

// member is one worker, from its launch to its end.
type member struct {
	id     pool.WorkerSeq
	gen    *generation
	why    pool.Purpose
	begun  time.Time          // launched, or appointed
	placed chan int           // a spare's slot; capacity 1
	warm   bool               // a spare that waits; guarded by crew.mu
	seated bool               // it is, or was, a slot's worker; guarded by crew.mu
	unfit  bool               // to be killed as soon as there is something to kill; likewise
	wanted context.Context    // ends when unfit is set, or it has ended
	drop   context.CancelFunc // ends wanted
	peer   *peer              // nil until it is forked; likewise
	err    error              // why it did not become ready; likewise
	asked  time.Time          // when it was asked to drain; likewise
	leaves pool.Purpose           // why it was asked; likewise
	slot   int                // likewise
	told   bool               // by a signal from outside to end; likewise
}

// started answers the supervisor's start of a slot.
type started struct {
	seat *seat
	err  error
}

// note is news for the pool's supervisor to publish.
type note struct {
	id string
	ev PoolEvent
}

func newCrew(rt *Runtime, path string, role role, p Pool) *crew {
	c := &crew{
		rt: rt, path: path, role: role, pool: p, began: time.Now(),
		members: map[pool.WorkerSeq]*member{}, seats: map[int]*seat{}, starts: map[int][]chan<- started{},
		counts: map[int]int{}, answers: map[pool.EffectKind][]chan<- pool.Effect{},
		fallen: map[pool.WorkerSeq]*member{}, tellings: map[int]time.Time{}, supplied: make(chan struct{}), gone: make(chan struct{}),
	}
	c.limit, c.end = context.WithCancel(context.Background())
	return c
}

// begin sets the generation that the pool's first workers are of.
func (c *crew) begin(generation int) {
	c.rules = pool.New(c.pool.rules(), pool.Generation(generation))
	c.generation.Store(int64(generation))
}

// step tells the rules what happened, and does what follows: in order, and by one
// goroutine at a time; one that comes while another is at work leaves its own to it.
// Nothing here waits for a child.
func (c *crew) step(ev pool.Event) {
	c.mu.Lock()
	c.stepLocked(ev)
}

// stepLocked is step for who has something to note before; it unlocks mu.
func (c *crew) stepLocked(ev pool.Event) {
	c.todo = append(c.todo, c.rules.Step(time.Since(c.began), ev)...)
	if ev.Kind == pool.Ended {
		c.todo = append(c.todo, pool.Effect{Kind: forget, Worker: ev.Worker})
	}
	c.workLocked()
}

// workLocked does what is to do, unless another goroutine is at it; it unlocks mu.
func (c *crew) workLocked() {
	if c.busy {
		c.mu.Unlock()
		return
	}
	c.busy = true
	for len(c.todo) > 0 {
		e := c.todo[0]
		c.todo = c.todo[1:]
		c.mu.Unlock()
		c.perform(e)
		c.mu.Lock()
	}
	c.busy = false
	c.mu.Unlock()
}

// turn is an effect of our own: it proves that whoever works on todo does.
const turn = pool.EffectKind(254)

// Turn waits until everything that the rules have said is done: see
// [supervisor.Supervisor.Turn].
func (c *crew) Turn(ctx context.Context) error {
	ch := make(chan struct{})
	c.mu.Lock()
	c.turns = append(c.turns, ch)
	c.todo = append(c.todo, pool.Effect{Kind: turn})
	c.workLocked()
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("coppice: pool %s: %w", c.path, ctx.Err())
	}
}

// forget is an effect of our own: what became of a worker is told, it is known no more.
const forget = pool.EffectKind(255)

// perform does one effect.
func (c *crew) perform(e pool.Effect) {
	switch e.Kind {
	case pool.Launch:
		m := &member{
			id: e.Worker, gen: c.rt.gens.take(int(e.Gen)), why: e.Why, slot: e.Slot,
			begun: time.Now(), placed: make(chan int, 1),
		}
		m.wanted, m.drop = context.WithCancel(c.limit)
		c.mu.Lock()
		c.members[m.id] = m
		c.mu.Unlock()
		c.note(e.Slot, PoolEvent{Kind: WorkerStarting, Why: e.Why.String(), Generation: m.gen.number})
		go c.life(m) // ends with the worker, for which the pool's end waits
	case pool.Assign:
		m := c.member(e.Worker)
		c.mu.Lock()
		m.slot, m.why, m.begun = e.Slot, e.Why, time.Now()
		c.mu.Unlock()
		m.placed <- e.Slot
	case pool.Up:
		c.up(e)
	case pool.Fail:
		c.answer(e.Slot, started{err: c.because(e.Worker)})
	case pool.Swap:
		c.swap(e)
	case pool.Down:
		c.down(e)
	case pool.Drain:
		c.drain(e)
	case pool.ForceDrain:
		if p := c.member(e.Worker).peer; p != nil {
			c.note(e.Slot, p.event(PoolEvent{Kind: DrainCut, Why: e.Why.String()}))
			p.hurry()
		}
	case pool.Kill:
		c.kill(e)
	case pool.Add:
		go c.add(e.Slot) // ends with the slot's start
	case pool.Remove:
		go c.remove(e.Slot) // ends when the slot is gone, which does not wait for its worker
	case pool.Rolled, pool.Scaled:
		if e.Kind == pool.Scaled && e.Result == pool.Failed {
			c.rt.crews.fell(c, e.Size)
		}
		c.mu.Lock()
		ch := c.answers[e.Kind][0]
		c.answers[e.Kind] = c.answers[e.Kind][1:]
		c.mu.Unlock()
		ch <- e // capacity 1, and the only one
	case pool.Wake:
		d := e.At - time.Since(c.began)
		c.mu.Lock()
		if c.alarm != nil {
			c.alarm.Stop()
		}
		c.alarm = time.AfterFunc(d, func() { c.step(pool.Event{Kind: pool.Tick}) })
		c.mu.Unlock()
	case turn:
		c.mu.Lock()
		close(c.turns[0])
		c.turns = c.turns[1:]
		c.mu.Unlock()
	case forget:
		c.mu.Lock()
		delete(c.members, e.Worker)
		c.mu.Unlock()
	case pool.Gone:
		c.mu.Lock()
		if c.alarm != nil {
			c.alarm.Stop()
		}
		c.mu.Unlock()
		c.end()
		close(c.gone)
	}
}

func (c *crew) member(id pool.WorkerSeq) *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.members[id]
}

// start is the supervisor's start of a slot. It returns when the slot has its worker.
func (c *crew) start(ctx context.Context, slot int) (supervisor.Instance, error) {
	reply := make(chan started, 1)
	c.mu.Lock()
	c.starts[slot] = append(c.starts[slot], reply)
	c.mu.Unlock()
	c.step(pool.Event{Kind: pool.Start, Slot: slot})
	var r started
	select {
	case r = <-reply:
	case <-ctx.Done():
		c.step(pool.Event{Kind: pool.Cancel, Slot: slot})
		r = <-reply // the rules answer every start
	}
	if r.seat != nil {
		return r.seat, nil // too late, perhaps: that is the supervisor's to see
	}
	if ctx.Err() != nil && !errors.Is(r.err, context.Cause(ctx)) {
		return nil, fmt.Errorf("%w: %s: %w; %w", ErrNotReady, c.name(slot), context.Cause(ctx), r.err)
	}
	return nil, r.err
}

func (c *crew) answer(slot int, r started) {
	c.mu.Lock()
	waiting := c.starts[slot]
	delete(c.starts, slot)
	c.mu.Unlock()
	for _, ch := range waiting {
		ch <- r // capacity 1, and the only one
	}
}

// because returns why a worker did not become ready.
func (c *crew) because(id pool.WorkerSeq) error {
	if m := c.member(id); m != nil && m.err != nil {
		return m.err
	}
	return errors.New("coppice: the start was cancelled")
}

// up gives the supervisor the instance that it has waited for.
func (c *crew) up(e pool.Effect) {
	m := c.member(e.Worker)
	s := newSeat(c, e.Slot, m.peer)
	c.mu.Lock()
	c.seats[e.Slot] = s
	c.mu.Unlock()
	c.place(m, e.Slot)
	if c.role != roleListener {
		c.answer(e.Slot, started{seat: s})
		return
	}
	go func() { // ends with its sends to the workers, which the listener process's end cuts short
		c.rt.hub.appoint(c.limit, m.peer)
		c.answer(e.Slot, started{seat: s})
	}()
}

// swap has a slot's instance live on in another worker.
func (c *crew) swap(e pool.Effect) {
	m := c.member(e.Worker)
	c.mu.Lock()
	s := c.seats[e.Slot]
	c.mu.Unlock()
	if c.role == roleListener {
		go c.rt.hub.appoint(c.limit, m.peer) // ends as in up
	}
	s.take(m.peer)
	c.place(m, e.Slot)
	c.note(e.Slot, m.peer.event(PoolEvent{Kind: WorkerReplaced, Why: e.Why.String(), Took: time.Since(m.begun)}))
}

// place counts a worker as its slot's.
func (c *crew) place(m *member, slot int) {
	c.mu.Lock()
	m.seated = true
	c.counts[slot]++
	told := m.told
	c.mu.Unlock()
	c.watchLimits(m)
	if told {
		c.endByOrder(m)
	}
}

// down ends a slot's instance as its worker ended.
func (c *crew) down(e pool.Effect) {
	reason := supervisor.Reason{Kind: supervisor.Shutdown}
	var leaked <-chan struct{}
	if m := c.member(e.Worker); m != nil {
		switch {
		case m.peer != nil:
			reason, leaked = m.peer.reason, m.peer.Leaked()
		case m.err != nil:
			reason = supervisor.ReasonOf(m.err)
		}
	}
	c.mu.Lock()
	s := c.seats[e.Slot]
	c.mu.Unlock()
	s.close(reason, leaked)
}

// drain asks a worker to drain and end. One that is still its slot's, as when the
// supervisor stops it, is followed by another that will ask for the same sockets, or
// by nobody: what it closes from now on is no loss of the pool's.
func (c *crew) drain(e pool.Effect) {
	m := c.member(e.Worker)
	c.mu.Lock()
	seat := c.seats[e.Slot]
	m.asked, m.leaves = time.Now(), e.Why
	c.mu.Unlock()
	p := m.peer
	c.note(e.Slot, p.event(PoolEvent{Kind: DrainBegan, Why: e.Why.String(), Limit: p.welcome.Drain}))
	inSeat := seat != nil && seat.has(p)
	if inSeat {
		c.rt.sockets.RemoveWorker(uint64(p.welcome.ID), false)
	} else {
		p.retired.Store(true)
	}
	if !inSeat || !e.Brief { // else it has the supervisor's deadline
		p.unlessEnded(c.pool.Shutdown, p.Kill)
	}
	switch {
	case c.role == roleListener && !e.Brief:
		go func() { // ends with the wait, which is bounded
			<-seat.current().accepts // who comes after goes on by then
			c.rt.hub.quiet(c.limit, p)
			p.Stop()
		}()
	case e.Brief:
		p.Stop()
	default:
		p.retire()
	}
}

// kill ends a worker without asking.
func (c *crew) kill(e pool.Effect) {
	m := c.member(e.Worker)
	c.mu.Lock()
	m.unfit = true
	m.drop()
	p, seated := m.peer, m.seated
	c.mu.Unlock()
	switch {
	case p == nil: // life looks once it has forked
	case seated:
		p.Kill()
	default:
		p.killFor(KilledUnwanted)
	}
}

// life is a worker's, from its fork to its end.
func (c *crew) life(m *member) {
	p, err := c.bring(m)
	if p != nil {
		<-p.done
		c.mourn(m, p)
	}
	final, struck := c.bury(m, p, err), p != nil && p.struck()
	if struck && err != nil && !c.pool.OTP { // the supervisor may not hear of it
		c.rt.log.Error("a start failed: the worker was killed from outside", "name", p.name(), "id", p.welcome.ID, "reason", p.reason.String())
	}
	c.step(pool.Event{Kind: pool.Ended, Worker: m.id, Final: final, KilledOutside: struck})
}

// bury keeps of a worker that has ended what a roll may have to blame, and tells
// whether nobody restarts it.
func (c *crew) bury(m *member, p *peer, err error) (final bool) {
	m.drop()
	m.gen.release()
	c.mu.Lock()
	if m.err == nil {
		m.err = err
	}
	if m.gen.number == c.rolling {
		c.fallen[m.id] = m
	}
	final = p != nil && m.seated && c.final(p.reason)
	c.mu.Unlock()
	return final
}

// final tells whether the supervisor leaves it at that.
func (c *crew) final(r supervisor.Reason) bool {
	switch c.pool.Restart {
	case supervisor.Temporary:
		return true
	case supervisor.Transient:
		return r.IsNormal()
	case supervisor.Permanent:
	}
	return false
}

// bring starts m and tells the rules when it is ready, or warm first, if it is to be a
// spare. It returns the worker once it is ready or has ended; nil when there is none.
func (c *crew) bring(m *member) (*peer, error) {
	w := welcome{
		Role: c.role, Slot: m.slot, Name: c.name(m.slot), Generation: m.gen.number,
		Config: m.gen.config, Drain: c.pool.Shutdown * 9 / 10,
	}
	if c.role == roleWorker {
		w.Path = c.path
		w.Requests = c.requests(m.slot)
	}
	if m.slot != pool.Spare {
		w.Incarnation = c.incarnation(m.slot)
	}
	p, limit, err := c.hatch(m, w)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithDeadlineCause(c.limit, limit, supervisor.ErrStartTimeout)
	defer cancel()
	spent := sync.OnceFunc(func() { c.due(m, "requests") })
	p.spent.Store(&spent)
	ordered := c.onOrder(m, p)
	p.ordered.Store(&ordered)
	c.mu.Lock()
	m.peer = p
	unfit := m.unfit
	c.mu.Unlock()
	if unfit {
		p.killFor(KilledUnwanted)
	}
	err = c.rt.bringUp(ctx, p)
	if err == nil && w.Slot == pool.Spare {
		c.mu.Lock()
		m.warm = true
		c.mu.Unlock()
		c.note(pool.Spare, p.event(PoolEvent{Kind: SpareWarm, Took: time.Since(m.begun)}))
		c.step(pool.Event{Kind: pool.Warmed, Worker: m.id})
		select {
		case slot := <-m.placed:
			ctx, cancel = context.WithTimeoutCause(c.limit, c.pool.StartTimeout, supervisor.ErrStartTimeout)
			defer cancel()
			err = c.rt.appoint(ctx, p, appointment{
				Name: c.name(slot), Slot: slot, Incarnation: c.incarnation(slot), Requests: c.requests(slot),
			})
		case <-p.done:
			return p, p.beforeReady(nil)
		}
	}
	if err == nil {
		c.step(pool.Event{Kind: pool.Ready, Worker: m.id})
		return p, nil
	}
	if cause := context.Cause(ctx); cause != nil {
		why := KilledUnwanted
		if errors.Is(cause, supervisor.ErrStartTimeout) {
			why = KilledNotReady
		}
		p.killFor(why)
		<-p.done
		return p, fmt.Errorf("%w: %s: %w; %w", ErrNotReady, p.name(), cause, supervisor.Exit(p.reason))
	}
	p.killFor(KilledUnwanted)
	<-p.done
	return p, err
}

// hatch starts m. While the master lacks what that takes it tries again: for as long as it
// takes when the slot had a worker before, else for StartTimeout, as there are those who
// wait for the outcome. With Pool.OTP the start fails. It returns when StartTimeout ends, of
// which each try has its own.
func (c *crew) hatch(m *member, w welcome) (p *peer, limit time.Time, err error) {
	try := func() error {
		limit = time.Now().Add(c.pool.StartTimeout)
		ctx, cancel := context.WithDeadlineCause(m.wanted, limit, errNotForked)
		defer cancel()
		p, err = c.rt.hatch(ctx, w, c.pool.Isolation, m.gen)
		return err
	}
	if c.pool.OTP {
		err = try()
		return p, limit, err
	}
	ctx, cancel := m.wanted, context.CancelFunc(func() {})
	if m.why != pool.ForStart || w.Incarnation == 1 {
		ctx, cancel = context.WithTimeout(ctx, c.pool.StartTimeout)
	}
	defer cancel()
	err = c.rt.whileShort(ctx, w.Name, try)
	return p, limit, err
}

// mourn says how a worker ended, and gives its name back to who is in its place.
func (c *crew) mourn(m *member, p *peer) {
	c.mu.Lock()
	slot, seated, asked, leaves := m.slot, m.seated, m.asked, m.leaves
	seat := c.seats[slot]
	c.mu.Unlock()
	if !asked.IsZero() {
		ev := PoolEvent{Kind: WorkerDrained, Why: leaves.String(), Took: time.Since(asked), Reason: p.reason, Forced: int(p.forced.Load())}
		if bye := p.bye.Load(); bye != nil {
			ev.Forced = bye.Forced
		}
		if ev.Forced > 0 {
			c.rt.log.Warn("drain: connections cut", "name", p.name(), "forced", ev.Forced, "after", ev.Took.Round(time.Millisecond))
		}
		c.note(slot, p.event(ev))
	} else if !seated {
		c.note(slot, p.event(PoolEvent{Kind: WorkerFailed, Why: m.why.String(), Reason: p.reason}))
	}
	if !seated && slot != pool.Spare && seat != nil { // it may have had the name
		if now := seat.current(); now != nil && now != p {
			_ = c.rt.hub.rename(now) // the master's own names are always there
		}
	}
}

// name is the registered name of the worker of a slot.
func (c *crew) name(slot int) string {
	switch {
	case c.role == roleListener:
		return listenerName
	case slot == pool.Spare:
		return c.path + "/spare"
	}
	return c.path + "/" + strconv.Itoa(slot)
}

// seatID is a slot's ID as a child of the pool's supervisor.
func (c *crew) seatID(slot int) string {
	switch {
	case c.role == roleListener:
		return listenerName
	case slot == pool.Spare:
		return ""
	}
	return strconv.Itoa(slot)
}

// incarnation is the number of the next worker of a slot.
func (c *crew) incarnation(slot int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[slot] + 1
}

// note publishes ev as news of a slot.
func (c *crew) note(slot int, ev PoolEvent) {
	ev.Pool, ev.Slot = c.path, slot
	if c.role == roleListener {
		ev.Pool = listenersName
	}
	c.rt.log.LogAttrs(context.Background(), slog.LevelDebug, "pool: "+ev.String())
	n := note{c.seatID(slot), ev}
	c.mu.Lock()
	sup := c.sup
	if sup == nil {
		c.notes = append(c.notes, n)
	}
	c.mu.Unlock()
	if sup != nil {
		sup.Note(n.id, n.ev)
	}
}

// supervised is told the pool's supervisor, which publishes what happened meanwhile.
func (c *crew) supervised(sup *supervisor.Supervisor) {
	c.mu.Lock()
	c.sup = sup
	close(c.supplied)
	notes := c.notes
	c.notes = nil
	c.mu.Unlock()
	for _, n := range notes {
		sup.Note(n.id, n.ev)
	}
}
