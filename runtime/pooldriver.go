package coppice

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/canary"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/runtime/internal/telemetry"
	"github.com/coppice-go/coppice/supervisor"
)

// poolDriver executes the rules of internal/pool for one running pool, and decides nothing. It has
// the pool's slots and workers, including workers without a slot. The listener process is a pool of
// one.
type poolDriver struct {
	poolParts
	kind     *poolKind
	path     string // of the pool in the tree
	pool     Pool   // complete
	began    time.Time
	alive    context.Context // ends with the pool: starts under way are given up
	endAlive context.CancelFunc

	mu              sync.Mutex
	rules           *pool.State
	effects         []func() // to be performed, in order
	performing      bool     // a goroutine performs them
	workers         map[pool.WorkerSeq]*poolWorker
	slots           map[int]*poolSlot
	pendingAnswers  map[pool.EffectKind][]chan<- pool.Effect // Rolled and Scaled, in the order asked
	timer           *time.Timer
	sup             *supervisor.Supervisor         // nil until it is up
	pendingNotes    []poolNote                     // what happened before sup was set
	deaths          map[int]int                    // crashes of the workers of a generation
	generationBegan time.Time                      // of now
	rolling         int                            // the generation of the roll under way; 0 = none
	failedInRoll    map[pool.WorkerSeq]*poolWorker // workers of rolling that have ended: one of them may be why it fails
	scaleErr        error                          // why the latest slot that was added did not come up
	holds           uint64                         // times that recycling was held back

	stopTime   atomic.Int64 // how long a worker may take at the end of the pool, in ns; 0 = pool.Shutdown
	generation atomic.Int64 // the generation that all slots have, or are to get

	guard      *requestGuard          // of its requests; nil = none
	autoscaled atomic.Pointer[string] // what the tree says of Pool.Autoscale
	scaler     sync.WaitGroup         // the goroutine of it

	judging  atomic.Bool                 // the workers are asked for figures
	judged   atomic.Pointer[string]      // what the tree says of Pool.Canary
	baseline atomic.Pointer[canary.Side] // what the generation before served beside the one of now; nil if that was not judged

	supervisorSet chan struct{} // closed when sup is set
	misfit        chan struct{} // closed when the start of a slot is tried again because of a misfit
	setMisfit     func()
	gone          chan struct{} // closed when the pool has stopped and no worker is left
}

// poolParts are the parts of the master that the driver of a pool and its workers use.
type poolParts struct {
	log           *slog.Logger
	tree          *supervisor.Supervisor // the root
	departures    *departures
	sizes         *poolSizes
	generations   *generations
	children      *children
	shortages     *retries
	backends      *backends
	lifecycle     *telemetry.Lifecycle // nil when neither spans nor metrics are on
	crashes       *crashQueue
	ending        func() bool   // reports whether the tree is ending
	reload        chan struct{} // Runtime.reload
	orders        *canaryOrders
	stopListening func(context.Context) // Runtime.stopListening
	orphanDrain   time.Duration         // Config.OrphanDrain
	stops         *stopPlan
	entry         string // the function of this package that began the tree: Main, Run, Start

	declarations *declarations
	misfits      *retries
	up           func() bool // reports whether the tree, or what was added with the pool, has started
}

// poolNote is news for the pool's supervisor to publish.
type poolNote struct {
	id string
	ev Event
}

func (n poolNote) publish(sup *supervisor.Supervisor) {
	sup.Note(n.id, n.ev, n.ev.Kind == WorkerReplaced)
}

func newPoolDriver(parts poolParts, kind *poolKind, path string, p Pool) *poolDriver {
	c := &poolDriver{
		poolParts: parts, kind: kind, path: path, pool: p, began: time.Now(), deaths: map[int]int{}, generationBegan: time.Now(),
		workers: map[pool.WorkerSeq]*poolWorker{}, slots: map[int]*poolSlot{}, pendingAnswers: map[pool.EffectKind][]chan<- pool.Effect{},
		failedInRoll: map[pool.WorkerSeq]*poolWorker{}, supervisorSet: make(chan struct{}), gone: make(chan struct{}),
	}
	if c.guard = newRequestGuard(p.Poison, path, c.log); c.guard != nil {
		c.guard.news = func(why string) { c.note(pool.Spare, Event{Kind: KeyQuarantined, Why: why}) }
		c.guard.lend = func() { c.step(pool.Event{Kind: pool.Lend}) }
		c.guard.recall = func() { c.step(pool.Event{Kind: pool.Recall}) }
		c.guard.listener = func() frameSender {
			if l := c.children.listenerProcess(); l != nil {
				return l
			}
			return nil
		}
	}
	c.misfit = make(chan struct{})
	c.setMisfit = sync.OnceFunc(func() { close(c.misfit) })
	c.alive, c.endAlive = context.WithCancel(context.Background())
	return c
}

// begin sets the generation that the pool's first workers are of.
func (c *poolDriver) begin(generation int) {
	c.rules = pool.New(c.pool.rules(), pool.Generation(generation))
	c.generation.Store(int64(generation))
}

// recall gives the pool the slots of the one in whose place it goes on.
func (c *poolDriver) recall(book []pool.SlotBook) {
	c.rules.Recall(book)
	for _, v := range book {
		c.slotLocked(v.N).incarnations = v.Workers
	}
}

// book returns what the pool that goes on in this one's place is to remember.
func (c *poolDriver) book() []pool.SlotBook {
	c.mu.Lock()
	defer c.mu.Unlock()
	book := c.rules.Book(time.Since(c.began))
	for i := range book {
		book[i].Workers = c.slotLocked(book[i].N).incarnations
	}
	return book
}

// slotNumbers returns the numbers of the pool's slots, in order.
func (c *poolDriver) slotNumbers() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.slots))
}

// firstSlots returns the numbers of the slots that the pool begins with: those that it had in the
// image of the program before this one, or as many as it is to have.
func (c *poolDriver) firstSlots() []int {
	if had := c.slotNumbers(); len(had) > 0 {
		return had
	}
	slots := make([]int, c.size())
	for i := range slots {
		slots[i] = i
	}
	return slots
}

// step passes an event to the rules and performs the effects, in order and by one goroutine at a
// time: a caller that comes while another performs leaves its effects to that one. step waits for
// no worker.
func (c *poolDriver) step(ev pool.Event) {
	c.mu.Lock()
	c.stepLocked(ev)
}

// stepLocked is step for a caller that must note something first; it unlocks mu.
func (c *poolDriver) stepLocked(ev pool.Event) {
	for _, e := range c.rules.Step(time.Since(c.began), ev) {
		c.effects = append(c.effects, func() { c.perform(e) })
	}
	if ev.Kind == pool.Ended { // earlier effects may concern it
		c.effects = append(c.effects, func() { c.forget(ev.Worker) })
	}
	c.performLocked()
}

// performLocked performs the effects, unless another goroutine does; it unlocks mu.
func (c *poolDriver) performLocked() {
	if c.performing {
		c.mu.Unlock()
		return
	}
	c.performing = true
	for len(c.effects) > 0 {
		do := c.effects[0]
		c.effects = c.effects[1:]
		c.mu.Unlock()
		do()
		c.mu.Lock()
	}
	c.performing = false
	c.mu.Unlock()
}

// Turn waits until every effect so far is performed; see [supervisor.Supervisor.Turn].
func (c *poolDriver) Turn(ctx context.Context) error {
	done := make(chan struct{})
	c.mu.Lock()
	c.effects = append(c.effects, func() { close(done) })
	c.performLocked()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("coppice: pool %s: %w", c.path, ctx.Err())
	}
}

// forget drops a worker that has ended and whose end is reported.
func (c *poolDriver) forget(id pool.WorkerSeq) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.workers, id)
}

// perform performs one effect.
func (c *poolDriver) perform(e pool.Effect) {
	switch e.Kind {
	case pool.Launch:
		w := newPoolWorker(c, e)
		c.mu.Lock()
		c.workers[w.id] = w
		c.mu.Unlock()
		c.note(e.Slot, Event{Kind: WorkerStarting, Identity: Identity{Generation: w.gen.number}, Why: e.Why.String()})
		if before := c.children.inherited.worker(c.path, e.Slot); before != nil {
			w.takeErr = w.takeOver(before)
		}
		go w.run() // ends with the worker, for which the pool's end waits
	case pool.Assign:
		w := c.worker(e.Worker)
		c.mu.Lock()
		w.slot, w.why, w.startedAt = e.Slot, e.Why, time.Now()
		c.mu.Unlock()
		w.toSlot <- e.Slot
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
		w := c.worker(e.Worker)
		c.note(e.Slot, w.event(Event{Kind: DrainCut, Why: e.Why.String()}))
		w.cutDrain()
	case pool.Kill:
		c.kill(e)
	case pool.Add:
		go c.add(e.Slot) // ends with the slot's start
	case pool.Remove:
		go c.remove(e.Slot) // ends when the slot is gone, which does not wait for its worker
	case pool.Rolled, pool.Scaled:
		if e.Kind == pool.Scaled && e.Result == pool.Failed {
			c.sizes.set(c.path, e.Size) // not every slot came up
		}
		c.mu.Lock()
		ch := c.pendingAnswers[e.Kind][0]
		c.pendingAnswers[e.Kind] = c.pendingAnswers[e.Kind][1:]
		c.mu.Unlock()
		ch <- e // capacity 1, and this is the only value
	case pool.Hold:
		w := c.worker(e.Worker)
		c.mu.Lock()
		c.holds++
		n := c.holds
		c.mu.Unlock()
		if isPowerOfTwo(n) {
			overMemory{name: w.name(), memory: w.memory.Load(), limit: c.pool.Recycle.SoftMemory}.logHeld(c.log, e.At-time.Since(c.began), n)
		}
	case pool.Wake:
		d := e.At - time.Since(c.began)
		c.mu.Lock()
		if c.timer != nil {
			c.timer.Stop()
		}
		c.timer = time.AfterFunc(d, func() { c.step(pool.Event{Kind: pool.Tick}) })
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

// slotUp gives the supervisor the instance that it waits for.
func (c *poolDriver) slotUp(e pool.Effect) {
	w := c.worker(e.Worker)
	c.mu.Lock()
	s := c.slotLocked(e.Slot)
	s.instance = &slotInstance{driver: c, slot: e.Slot}
	up := startResult{instance: s.instance}
	s.occupy(w)
	c.mu.Unlock()
	c.occupySlot(w)
	if c.kind.takeOver == nil {
		c.answer(e.Slot, up)
		return
	}
	go func() { // ends with takeOver, which w's end cuts short
		c.kind.takeOver(c.alive, c.children, w)
		c.answer(e.Slot, up)
	}()
}

// slotSwap changes the worker behind a slot's running instance.
func (c *poolDriver) slotSwap(e pool.Effect) {
	w := c.worker(e.Worker)
	if c.kind.takeOver != nil {
		go c.kind.takeOver(c.alive, c.children, w) // ends as in slotUp
	}
	c.mu.Lock()
	c.slotLocked(e.Slot).occupy(w)
	c.mu.Unlock()
	c.occupySlot(w)
	c.note(e.Slot, w.event(Event{Kind: WorkerReplaced, Why: e.Why.String(), Took: time.Since(w.startedAt)}))
}

// occupySlot makes a worker its slot's worker.
func (c *poolDriver) occupySlot(w *poolWorker) {
	c.mu.Lock()
	w.hadSlot = true
	c.slotLocked(w.slot).incarnations++
	stop := w.stopSignalled
	c.mu.Unlock()
	if r := c.pool.Recycle; r.watches() {
		due := func(limit string, reached int64) {
			w.memory.Store(reached)
			c.markDue(w, limit)
		}
		began := time.Now()
		over := func(memory int64) {
			overMemory{w.name(), memory, r.HardMemory, time.Since(began)}.logKilled(c.log)
		}
		limitWatch{&w.workerStop, r, w.slot, c.size(), due, over}.begin()
	}
	if stop {
		c.stopForSignal(w)
	}
}

// slotDown ends a slot's instance with the reason of its worker.
func (c *poolDriver) slotDown(e pool.Effect) {
	reason := supervisor.Reason{Kind: supervisor.Shutdown}
	var leaked <-chan struct{}
	c.mu.Lock()
	s := c.slotLocked(e.Slot).instance
	if w := c.workers[e.Worker]; w != nil {
		switch {
		case w.launched:
			reason, leaked = w.reason, w.backend.leaked()
		case w.err != nil:
			reason = supervisor.ReasonOf(w.err)
		}
	}
	c.mu.Unlock()
	s.Terminate(reason, leaked)
}

// drain asks a worker to drain and end. If the worker still holds its slot, as when the supervisor
// stops it, closing its listeners must not close the pool's sockets: the slot's next worker, if
// there is one, will ask for them.
func (c *poolDriver) drain(e pool.Effect) {
	w := c.worker(e.Worker)
	c.mu.Lock()
	next := c.slots[e.Slot].occupant()
	w.drainAsked, w.drainWhy = time.Now(), e.Why
	c.mu.Unlock()
	limit := c.pool.Shutdown
	if e.Why == pool.ForStop {
		limit = cmp.Or(time.Duration(c.stopTime.Load()), limit)
	}
	c.note(e.Slot, w.event(Event{Kind: DrainBegan, Why: e.Why.String(), Limit: drainOf(limit)}))
	inSlot := next == w
	if inSlot && e.Why != pool.ForScale { // a slot that is removed takes its socket along
		c.children.sockets.RemoveWorker(uint64(w.hello.ID), false)
	} else {
		w.retired.Store(true)
	}
	if !inSlot || !e.Brief || limit < c.pool.Shutdown { // otherwise it has the supervisor's deadline
		w.unlessEnded(limit, w.Kill)
	}
	switch {
	case c.kind.handOver != nil && !e.Brief:
		go func() { // ends with the wait, which is bounded
			c.kind.handOver(c.alive, c.children, w, next)
			w.Stop()
		}()
	case e.Brief:
		w.stopWithin(drainOf(limit))
	default:
		w.retire()
	}
}

// stopsIn returns how long the pool may take to stop.
func (c *poolDriver) stopsIn() time.Duration {
	d := max(0, c.pool.Shutdown) // BrutalKill is none
	if c.pool.OTP || c.pool.StopInOrder {
		d *= time.Duration(c.size())
	}
	return d
}

// setStopTime gives the workers their share of the time that the tree has for its end.
func (c *poolDriver) setStopTime() {
	if c.pool.Shutdown <= 0 {
		return
	}
	d := max(c.stops.share(time.Now(), c.pool.Shutdown), time.Nanosecond)
	if c.stopTime.Store(int64(d)); d < c.pool.Shutdown {
		c.log.Info("a pool stops in less time than its Shutdown", "pool", c.path, "within", d.Round(time.Millisecond).String(), "shutdown", c.pool.Shutdown.String())
	}
}

// byOperator is why a worker is due that a caller of the Runtime has replaced.
const byOperator = "operator"

// markDue makes the rules replace a worker when its turn comes.
func (c *poolDriver) markDue(w *poolWorker, why string) {
	c.note(w.assigned.Load().slot, w.event(Event{Kind: WorkerDue, Why: why}))
	c.step(pool.Event{Kind: pool.Due, Worker: w.id, Brake: why == "memory", Once: why == byOperator})
}

// kill ends a worker without asking.
func (c *poolDriver) kill(e pool.Effect) {
	w := c.worker(e.Worker)
	w.dismiss()
	c.mu.Lock()
	launched, hadSlot := w.launched, w.hadSlot
	c.mu.Unlock()
	switch {
	case !launched: // launch checks once there is something to kill
	case hadSlot:
		w.Kill()
	default:
		w.killFor(KilledUnwanted)
	}
}

// recordExit keeps a worker that has ended as a possible cause of a failed roll, and reports
// whether the supervisor leaves it ended.
func (c *poolDriver) recordExit(w *poolWorker, err error) (final bool) {
	w.dismiss()
	w.gen.release()
	c.mu.Lock()
	defer c.mu.Unlock()
	w.err = err
	if w.gen.number == c.rolling {
		c.failedInRoll[w.id] = w
	}
	final = w.hadSlot && c.isLast(w.reason)
	switch s := c.slots[w.slot]; {
	case s == nil:
	case final && s.worker == w:
		s.answerReplacements(fmt.Errorf("%w: it has ended for good: %w", ErrNoChild, endError(w.reason)))
	case err != nil && !w.hadSlot:
		s.answerReplacements(err)
	}
	return final
}

// isLast reports whether the supervisor starts no replacement after an end for that reason.
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

// helloFor returns the hello of w, which is about to be launched.
func (c *poolDriver) helloFor(w *poolWorker) childproto.Hello {
	h := childproto.Hello{
		Protocol: childproto.Version, Tree: c.declarations.digest(), OrphanDrain: c.orphanDrain,
		Role: c.kind.role, Slot: w.slot, Name: c.name(w.slot), Generation: w.gen.number,
		Config: w.gen.config, Drain: w.drain, Host: c.children.host, Boot: c.children.boot,
	}
	if c.kind.ofConfig {
		h.Path, h.Function, h.Requests = c.path, c.pool.Function, c.pool.Recycle.requestLimit(max(w.slot, pool.Spare), c.size())
		live := c.pool.Liveness.defaults()
		h.Figures, h.Timeouts = c.pool.Canary.Slots > 0, childproto.Timeouts(c.pool.RequestTimeout)
		h.Restart, h.HealthPath, h.HealthTimeout = c.pool.Restart, live.Path, live.Timeout
	}
	switch w.slot {
	case pool.Spare:
	case pool.Trial:
		h.Alone, h.Slot = true, 0 // as the next worker of a slot, which it does not get
	default:
		h.Incarnation = c.incarnation(w.slot)
	}
	return h
}

// size returns how many slots the pool is to have.
func (c *poolDriver) size() int { return c.sizes.size(c.path, c.pool.Size) }

// environment returns that of a worker. The listener process has none, and a part of the memory
// that is shared out to nobody.
func (c *poolDriver) environment(environ []string) Environment {
	if c.kind != workerPool {
		return c.pool.Environment
	}
	return c.pool.environment(c.size(), environ, process.CgroupMemory(), process.MemoryLimit())
}

// name returns the registered name of the worker of a slot.
func (c *poolDriver) name(slot int) string { return c.kind.names(c.path, slot).registered }

// slotID returns a slot's ID as a child of the pool's supervisor.
func (c *poolDriver) slotID(slot int) string { return c.kind.names(c.path, slot).id }

// incarnation returns the number of the next worker of a slot.
func (c *poolDriver) incarnation(slot int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.slotLocked(slot).incarnations + 1
}

// maxPendingNotes bounds the news of a pool that is starting, perhaps again and again. Further news
// is in the log alone.
const maxPendingNotes = 1024

// note publishes ev as news of a slot.
func (c *poolDriver) note(slot int, ev Event) {
	slot = max(slot, pool.Spare)
	ev.Path, ev.Slot = c.kind.events(c.path), slot
	ev.log(c.log)
	n := poolNote{c.slotID(slot), ev}
	c.mu.Lock()
	sup := c.sup
	if sup == nil && len(c.pendingNotes) < maxPendingNotes {
		c.pendingNotes = append(c.pendingNotes, n)
	}
	c.mu.Unlock()
	if sup != nil {
		n.publish(sup)
	}
}

// setSupervisor sets the pool's supervisor and publishes the notes that waited for it.
func (c *poolDriver) setSupervisor(sup *supervisor.Supervisor) {
	c.mu.Lock()
	c.sup = sup
	close(c.supervisorSet)
	notes := c.pendingNotes
	c.pendingNotes = nil
	c.mu.Unlock()
	for _, n := range notes {
		n.publish(sup)
	}
}
