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

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
)

// poolDriver is the workers of one running pool, those included that have no slot: it
// drives the rules of internal/pool, and decides nothing. The listener process is a
// pool of one.
type poolDriver struct {
	poolParts
	path     string // of the pool in the tree
	role     childproto.Role
	pool     Pool // complete
	began    time.Time
	alive    context.Context // ends with the pool: what is being brought up is given up
	endAlive context.CancelFunc

	mu             sync.Mutex
	rules          *pool.State
	effects        []pool.Effect
	performing     bool              // somebody works on todo
	turns          []chan<- struct{} // closed by the effects turn, in order
	workers        map[pool.WorkerSeq]*poolWorker
	slots          map[int]*slotInstance                    // the supervisor's latest instance of each slot
	pendingStarts  map[int][]chan<- startResult             // the supervisor's starts that wait
	incarnations   map[int]int                              // workers that each slot has had
	pendingAnswers map[pool.EffectKind][]chan<- pool.Effect // Rolled and Scaled, in the order asked
	timer          *time.Timer
	sup            *supervisor.Supervisor         // nil until it is up
	pendingNotes   []poolNote                     // what happened before
	rolling        int                            // the generation of the roll that goes on; 0 = none
	failedInRoll   map[pool.WorkerSeq]*poolWorker // of rolling, ended: one of them may be why it fails
	signalledAt    map[int]time.Time              // when a slot's worker was told to end by a signal
	scaleErr       error                          // why the latest slot that was added did not come up

	generation atomic.Int64 // that all slots have, or are to have

	supervisorSet chan struct{} // closed when sup is set
	gone          chan struct{} // closed when the pool has stopped and no worker is left
}

// poolParts are what the driver of a pool, and its workers, use of the master.
type poolParts struct {
	log         *slog.Logger
	pools       *pools
	generations *generations
	children    *children
	shortages   *shortages
	backends    *backends
	lifecycle   *lifecycleSpans // nil: nobody wants to know
	crashes     *crashQueue     // likewise
	ending      func() bool     // the tree is
	orphanDrain time.Duration   // Config.OrphanDrain
}

// poolWorker is one worker, from its launch to its end.
type poolWorker struct {
	id            pool.WorkerSeq
	gen           *generation
	why           pool.Purpose
	startedAt     time.Time          // launched, or appointed
	assigned      chan int           // a spare's slot; capacity 1
	standby       bool               // a spare that waits; guarded by poolDriver.mu
	hadSlot       bool               // it is, or was, a slot's worker; guarded by poolDriver.mu
	unwanted      bool               // to be killed as soon as there is something to kill; likewise
	ctx           context.Context    // ends when unwanted is set, or it has ended
	cancel        context.CancelFunc // ends wanted
	child         *childHandle       // nil until it is forked; likewise
	err           error              // why it did not become ready; likewise
	drainAsked    time.Time          // when it was asked to drain; likewise
	drainWhy      pool.Purpose       // why it was asked; likewise
	slot          int                // likewise
	stopSignalled bool               // by a signal from outside to end; likewise
}

// startResult answers the supervisor's start of a slot.
type startResult struct {
	slot *slotInstance
	err  error
}

// poolNote is news for the pool's supervisor to publish.
type poolNote struct {
	id string
	ev PoolEvent
}

func newPoolDriver(parts poolParts, path string, role childproto.Role, p Pool) *poolDriver {
	c := &poolDriver{
		poolParts: parts, path: path, role: role, pool: p, began: time.Now(),
		workers: map[pool.WorkerSeq]*poolWorker{}, slots: map[int]*slotInstance{}, pendingStarts: map[int][]chan<- startResult{},
		incarnations: map[int]int{}, pendingAnswers: map[pool.EffectKind][]chan<- pool.Effect{},
		failedInRoll: map[pool.WorkerSeq]*poolWorker{}, signalledAt: map[int]time.Time{}, supervisorSet: make(chan struct{}), gone: make(chan struct{}),
	}
	c.alive, c.endAlive = context.WithCancel(context.Background())
	return c
}

// begin sets the generation that the pool's first workers are of.
func (c *poolDriver) begin(generation int) {
	c.rules = pool.New(c.pool.rules(), pool.Generation(generation))
	c.generation.Store(int64(generation))
}

// step tells the rules what happened, and does what follows: in order, and by one
// goroutine at a time; one that comes while another is at work leaves its own to it.
// Nothing here waits for a child.
func (c *poolDriver) step(ev pool.Event) {
	c.mu.Lock()
	c.stepLocked(ev)
}

// stepLocked is step for who has something to note before; it unlocks mu.
func (c *poolDriver) stepLocked(ev pool.Event) {
	c.effects = append(c.effects, c.rules.Step(time.Since(c.began), ev)...)
	if ev.Kind == pool.Ended {
		c.effects = append(c.effects, pool.Effect{Kind: forgetEffect, Worker: ev.Worker})
	}
	c.performLocked()
}

// performLocked does what is to do, unless another goroutine is at it; it unlocks mu.
func (c *poolDriver) performLocked() {
	if c.performing {
		c.mu.Unlock()
		return
	}
	c.performing = true
	for len(c.effects) > 0 {
		e := c.effects[0]
		c.effects = c.effects[1:]
		c.mu.Unlock()
		c.perform(e)
		c.mu.Lock()
	}
	c.performing = false
	c.mu.Unlock()
}

// turnEffect is an effect of our own: it proves that whoever works on todo does.
const turnEffect = pool.EffectKind(254)

// Turn waits until everything that the rules have said is done: see
// [supervisor.Supervisor.Turn].
func (c *poolDriver) Turn(ctx context.Context) error {
	ch := make(chan struct{})
	c.mu.Lock()
	c.turns = append(c.turns, ch)
	c.effects = append(c.effects, pool.Effect{Kind: turnEffect})
	c.performLocked()
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("coppice: pool %s: %w", c.path, ctx.Err())
	}
}

// forgetEffect is an effect of our own: what became of a worker is told, it is known no more.
const forgetEffect = pool.EffectKind(255)

// perform does one effect.
func (c *poolDriver) perform(e pool.Effect) {
	switch e.Kind {
	case pool.Launch:
		m := &poolWorker{
			id: e.Worker, gen: c.generations.use(int(e.Gen)), why: e.Why, slot: e.Slot,
			startedAt: time.Now(), assigned: make(chan int, 1),
		}
		m.ctx, m.cancel = context.WithCancel(c.alive)
		c.mu.Lock()
		c.workers[m.id] = m
		c.mu.Unlock()
		c.note(e.Slot, PoolEvent{Kind: WorkerStarting, Why: e.Why.String(), Generation: m.gen.number})
		go c.runWorker(m) // ends with the worker, for which the pool's end waits
	case pool.Assign:
		m := c.worker(e.Worker)
		c.mu.Lock()
		m.slot, m.why, m.startedAt = e.Slot, e.Why, time.Now()
		c.mu.Unlock()
		m.assigned <- e.Slot
	case pool.Up:
		c.slotUp(e)
	case pool.Fail:
		c.answer(e.Slot, startResult{err: c.startFailure(e.Worker)})
	case pool.Swap:
		c.slotSwap(e)
	case pool.Down:
		c.slotDown(e)
	case pool.Drain:
		c.drain(e)
	case pool.ForceDrain:
		if p := c.worker(e.Worker).child; p != nil {
			c.note(e.Slot, p.event(PoolEvent{Kind: DrainCut, Why: e.Why.String()}))
			p.cutDrain()
		}
	case pool.Kill:
		c.kill(e)
	case pool.Add:
		go c.add(e.Slot) // ends with the slot's start
	case pool.Remove:
		go c.remove(e.Slot) // ends when the slot is gone, which does not wait for its worker
	case pool.Rolled, pool.Scaled:
		if e.Kind == pool.Scaled && e.Result == pool.Failed {
			c.pools.setSize(c, e.Size)
		}
		c.mu.Lock()
		ch := c.pendingAnswers[e.Kind][0]
		c.pendingAnswers[e.Kind] = c.pendingAnswers[e.Kind][1:]
		c.mu.Unlock()
		ch <- e // capacity 1, and the only one
	case pool.Wake:
		d := e.At - time.Since(c.began)
		c.mu.Lock()
		if c.timer != nil {
			c.timer.Stop()
		}
		c.timer = time.AfterFunc(d, func() { c.step(pool.Event{Kind: pool.Tick}) })
		c.mu.Unlock()
	case turnEffect:
		c.mu.Lock()
		close(c.turns[0])
		c.turns = c.turns[1:]
		c.mu.Unlock()
	case forgetEffect:
		c.mu.Lock()
		delete(c.workers, e.Worker)
		c.mu.Unlock()
	case pool.Gone:
		c.mu.Lock()
		if c.timer != nil {
			c.timer.Stop()
		}
		c.mu.Unlock()
		c.endAlive()
		close(c.gone)
	}
}

func (c *poolDriver) worker(id pool.WorkerSeq) *poolWorker {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.workers[id]
}

// start is the supervisor's start of a slot. It returns when the slot has its worker.
func (c *poolDriver) start(ctx context.Context, slot int) (supervisor.Instance, error) {
	reply := make(chan startResult, 1)
	c.mu.Lock()
	c.pendingStarts[slot] = append(c.pendingStarts[slot], reply)
	c.mu.Unlock()
	c.step(pool.Event{Kind: pool.Start, Slot: slot})
	var r startResult
	select {
	case r = <-reply:
	case <-ctx.Done():
		c.step(pool.Event{Kind: pool.Cancel, Slot: slot})
		r = <-reply // the rules answer every start
	}
	if r.slot != nil {
		return r.slot, nil // too late, perhaps: that is the supervisor's to see
	}
	if ctx.Err() != nil && !errors.Is(r.err, context.Cause(ctx)) {
		return nil, fmt.Errorf("%w: %s: %w; %w", ErrNotReady, c.name(slot), context.Cause(ctx), r.err)
	}
	return nil, r.err
}

func (c *poolDriver) answer(slot int, r startResult) {
	c.mu.Lock()
	waiting := c.pendingStarts[slot]
	delete(c.pendingStarts, slot)
	c.mu.Unlock()
	for _, ch := range waiting {
		ch <- r // capacity 1, and the only one
	}
}

// startFailure returns why a worker did not become ready.
func (c *poolDriver) startFailure(id pool.WorkerSeq) error {
	if m := c.worker(id); m != nil && m.err != nil {
		return m.err
	}
	return errors.New("coppice: the start was cancelled")
}

// slotUp gives the supervisor the instance that it has waited for.
func (c *poolDriver) slotUp(e pool.Effect) {
	m := c.worker(e.Worker)
	s := newSlotInstance(c, e.Slot, m.child)
	c.mu.Lock()
	c.slots[e.Slot] = s
	c.mu.Unlock()
	c.occupySlot(m, e.Slot)
	if c.role != childproto.RoleListener {
		c.answer(e.Slot, startResult{slot: s})
		return
	}
	go func() { // ends with its sends to the workers, which the listener process's end cuts short
		c.children.setListener(c.alive, m.child)
		c.answer(e.Slot, startResult{slot: s})
	}()
}

// slotSwap has a slot's instance live on in another worker.
func (c *poolDriver) slotSwap(e pool.Effect) {
	m := c.worker(e.Worker)
	c.mu.Lock()
	s := c.slots[e.Slot]
	c.mu.Unlock()
	if c.role == childproto.RoleListener {
		go c.children.setListener(c.alive, m.child) // ends as in up
	}
	s.setChild(m.child)
	c.occupySlot(m, e.Slot)
	c.note(e.Slot, m.child.event(PoolEvent{Kind: WorkerReplaced, Why: e.Why.String(), Took: time.Since(m.startedAt)}))
}

// occupySlot counts a worker as its slot's.
func (c *poolDriver) occupySlot(m *poolWorker, slot int) {
	c.mu.Lock()
	m.hadSlot = true
	c.incarnations[slot]++
	told := m.stopSignalled
	c.mu.Unlock()
	c.watchLimits(m)
	if told {
		c.stopForSignal(m)
	}
}

// slotDown ends a slot's instance as its worker ended.
func (c *poolDriver) slotDown(e pool.Effect) {
	reason := supervisor.Reason{Kind: supervisor.Shutdown}
	var leaked <-chan struct{}
	if m := c.worker(e.Worker); m != nil {
		switch {
		case m.child != nil:
			reason, leaked = m.child.reason, m.child.Leaked()
		case m.err != nil:
			reason = supervisor.ReasonOf(m.err)
		}
	}
	c.mu.Lock()
	s := c.slots[e.Slot]
	c.mu.Unlock()
	s.end(reason, leaked)
}

// drain asks a worker to drain and end. One that is still its slot's, as when the
// supervisor stops it, is followed by another that will ask for the same sockets, or
// by nobody: what it closes from now on is no loss of the pool's.
func (c *poolDriver) drain(e pool.Effect) {
	m := c.worker(e.Worker)
	c.mu.Lock()
	seat := c.slots[e.Slot]
	m.drainAsked, m.drainWhy = time.Now(), e.Why
	c.mu.Unlock()
	p := m.child
	c.note(e.Slot, p.event(PoolEvent{Kind: DrainBegan, Why: e.Why.String(), Limit: p.hello.Drain}))
	inSeat := seat != nil && seat.has(p)
	if inSeat {
		c.children.sockets.RemoveWorker(uint64(p.hello.ID), false)
	} else {
		p.retired.Store(true)
	}
	if !inSeat || !e.Brief { // else it has the supervisor's deadline
		p.unlessEnded(c.pool.Shutdown, p.Kill)
	}
	switch {
	case c.role == childproto.RoleListener && !e.Brief:
		go func() { // ends with the wait, which is bounded
			<-seat.current().linkedToAll // who comes after goes on by then
			c.children.drainListener(c.alive, p)
			p.Stop()
		}()
	case e.Brief:
		p.Stop()
	default:
		p.retire()
	}
}

// kill ends a worker without asking.
func (c *poolDriver) kill(e pool.Effect) {
	m := c.worker(e.Worker)
	c.mu.Lock()
	m.unwanted = true
	m.cancel()
	p, seated := m.child, m.hadSlot
	c.mu.Unlock()
	switch {
	case p == nil: // runWorker looks once it has forked
	case seated:
		p.Kill()
	default:
		p.killFor(KilledUnwanted)
	}
}

// runWorker is a worker's, from its fork to its end.
func (c *poolDriver) runWorker(m *poolWorker) {
	p, err := c.startWorker(m)
	if p != nil {
		<-p.done
		c.reportExit(m, p)
	}
	final, struck := c.recordExit(m, p, err), p != nil && p.killedFromOutside()
	if struck && err != nil && !c.pool.OTP { // the supervisor may not hear of it
		c.log.Error("a start failed: the worker was killed from outside", "name", p.name(), "id", p.hello.ID, "reason", p.reason.String())
	}
	c.step(pool.Event{Kind: pool.Ended, Worker: m.id, Final: final, KilledOutside: struck})
}

// recordExit keeps of a worker that has ended what a roll may have to blame, and tells
// whether nobody restarts it.
func (c *poolDriver) recordExit(m *poolWorker, p *childHandle, err error) (final bool) {
	m.cancel()
	m.gen.release()
	c.mu.Lock()
	if m.err == nil {
		m.err = err
	}
	if m.gen.number == c.rolling {
		c.failedInRoll[m.id] = m
	}
	final = p != nil && m.hadSlot && c.isLast(p.reason)
	c.mu.Unlock()
	return final
}

// isLast tells whether the supervisor leaves it at that.
func (c *poolDriver) isLast(r supervisor.Reason) bool {
	switch c.pool.Restart {
	case supervisor.Temporary:
		return true
	case supervisor.Transient:
		return r.IsNormal()
	case supervisor.Permanent:
	}
	return false
}

// startWorker starts m and tells the rules when it is ready, or warm first, if it is to be a
// spare. It returns the worker once it is ready or has ended; nil when there is none.
func (c *poolDriver) startWorker(m *poolWorker) (*childHandle, error) {
	w := childproto.Hello{
		Role: c.role, Slot: m.slot, Name: c.name(m.slot), Generation: m.gen.number,
		Config: m.gen.config, Drain: c.pool.Shutdown * 9 / 10,
	}
	if c.role == childproto.RoleWorker {
		w.Path = c.path
		w.Requests = c.requests(m.slot)
	}
	if m.slot != pool.Spare {
		w.Incarnation = c.incarnation(m.slot)
	}
	p, limit, err := c.startProcess(m, w)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithDeadlineCause(c.alive, limit, supervisor.ErrStartTimeout)
	defer cancel()
	spent := sync.OnceFunc(func() { c.markDue(m, "requests") })
	p.onRequestsSpent.Store(&spent)
	ordered := c.onStopSignal(m, p)
	p.onStopSignal.Store(&ordered)
	c.mu.Lock()
	m.child = p
	unfit := m.unwanted
	c.mu.Unlock()
	if unfit {
		p.killFor(KilledUnwanted)
	}
	err = p.awaitReady(ctx)
	if err == nil && w.Slot == pool.Spare {
		c.mu.Lock()
		m.standby = true
		c.mu.Unlock()
		c.note(pool.Spare, p.event(PoolEvent{Kind: SpareReady, Took: time.Since(m.startedAt)}))
		c.step(pool.Event{Kind: pool.Warmed, Worker: m.id})
		select {
		case slot := <-m.assigned:
			ctx, cancel = context.WithTimeoutCause(c.alive, c.pool.StartTimeout, supervisor.ErrStartTimeout)
			defer cancel()
			err = p.assignSlot(ctx, childproto.AssignFrame{
				Name: c.name(slot), Slot: slot, Incarnation: c.incarnation(slot), Requests: c.requests(slot),
			})
		case <-p.done:
			return p, p.notReadyError(nil)
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

// startProcess starts m. While the master lacks what that takes it tries again: for as long as it
// takes when the slot had a worker before, else for StartTimeout, as there are those who
// wait for the outcome. With Pool.OTP the start fails. It returns when StartTimeout ends, of
// which each try has its own.
func (c *poolDriver) startProcess(m *poolWorker, w childproto.Hello) (p *childHandle, limit time.Time, err error) {
	try := func() error {
		limit = time.Now().Add(c.pool.StartTimeout)
		ctx, cancel := context.WithDeadlineCause(m.ctx, limit, errForkTimeout)
		defer cancel()
		p, err = c.startChild(ctx, w, m.gen)
		return err
	}
	if c.pool.OTP {
		err = try()
		return p, limit, err
	}
	ctx, cancel := m.ctx, context.CancelFunc(func() {})
	if m.why != pool.ForStart || w.Incarnation == 1 {
		ctx, cancel = context.WithTimeout(ctx, c.pool.StartTimeout)
	}
	defer cancel()
	err = c.shortages.retry(ctx, w.Name, try)
	return p, limit, err
}

// reportExit says how a worker ended, and gives its name back to who is in its place.
func (c *poolDriver) reportExit(m *poolWorker, p *childHandle) {
	c.mu.Lock()
	slot, seated, asked, leaves := m.slot, m.hadSlot, m.drainAsked, m.drainWhy
	seat := c.slots[slot]
	c.mu.Unlock()
	if !asked.IsZero() {
		ev := PoolEvent{Kind: WorkerDrained, Why: leaves.String(), Took: time.Since(asked), Reason: p.reason, Forced: int(p.forced.Load())}
		if bye := p.exitNotice.Load(); bye != nil {
			ev.Forced = bye.Forced
		}
		if ev.Forced > 0 {
			c.log.Warn("drain: connections cut", "name", p.name(), "forced", ev.Forced, "after", ev.Took.Round(time.Millisecond))
		}
		c.note(slot, p.event(ev))
	} else if !seated {
		c.note(slot, p.event(PoolEvent{Kind: WorkerFailed, Why: m.why.String(), Reason: p.reason}))
	}
	if !seated && slot != pool.Spare && seat != nil { // it may have had the name
		if now := seat.current(); now != nil && now != p {
			_ = c.children.registerName(now) // the master's own names are always there
		}
	}
}

// name is the registered name of the worker of a slot.
func (c *poolDriver) name(slot int) string {
	switch {
	case c.role == childproto.RoleListener:
		return childproto.ListenerName
	case slot == pool.Spare:
		return c.path + "/spare"
	}
	return c.path + "/" + strconv.Itoa(slot)
}

// slotID is a slot's ID as a child of the pool's supervisor.
func (c *poolDriver) slotID(slot int) string {
	switch {
	case c.role == childproto.RoleListener:
		return childproto.ListenerName
	case slot == pool.Spare:
		return ""
	}
	return strconv.Itoa(slot)
}

// incarnation is the number of the next worker of a slot.
func (c *poolDriver) incarnation(slot int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.incarnations[slot] + 1
}

// note publishes ev as news of a slot.
func (c *poolDriver) note(slot int, ev PoolEvent) {
	ev.Pool, ev.Slot = c.path, slot
	if c.role == childproto.RoleListener {
		ev.Pool = childproto.ListenersName
	}
	c.log.LogAttrs(context.Background(), slog.LevelDebug, "pool: "+ev.String())
	n := poolNote{c.slotID(slot), ev}
	c.mu.Lock()
	sup := c.sup
	if sup == nil {
		c.pendingNotes = append(c.pendingNotes, n)
	}
	c.mu.Unlock()
	if sup != nil {
		sup.Note(n.id, n.ev)
	}
}

// setSupervisor is told the pool's supervisor, which publishes what happened meanwhile.
func (c *poolDriver) setSupervisor(sup *supervisor.Supervisor) {
	c.mu.Lock()
	c.sup = sup
	close(c.supervisorSet)
	notes := c.pendingNotes
	c.pendingNotes = nil
	c.mu.Unlock()
	for _, n := range notes {
		sup.Note(n.id, n.ev)
	}
}
