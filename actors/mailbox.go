package actors

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/mailqueue"
)

// Overflow is what happens to a user message for which a bounded mailbox has no room. System
// messages (Stop, Terminated) and Poison are never bounded, nor dropped; of those Stops and Poisons
// that wait for one actor, one is kept.
type Overflow uint8

const (
	// Wait makes the sender wait for room, without spinning: [System.Send] and [System.Ask] under
	// their context, an actor's own Send for at most [Config].SendWait, a message from another
	// process likewise (it holds up the data lane of that process, so that its senders wait in
	// turn). After that the message is a dead letter with [ErrFull]. What an actor sends to itself
	// does not wait: it is let in above the bound.
	Wait Overflow = iota
	// DropOldest lets the new message in; the one that waited longest is a dead letter.
	DropOldest
	// DropNewest makes the new message a dead letter. [System.Send] returns nil.
	DropNewest
	// Fail makes the new message a dead letter and [System.Send] return [ErrFull].
	Fail
)

func (o Overflow) String() string {
	names := [...]string{"wait", "drop oldest", "drop newest", "fail"}
	if int(o) < len(names) {
		return names[o]
	}
	return "overflow ?"
}

// throughput is how many messages an actor handles before it lets others run.
const throughput = 300

// promptly is how many messages a [Prompt] actor handles on a sender's goroutine. Those that are
// left, or come meanwhile, it handles on one of its own.
const promptly = 16

// actorMailbox is the actor.Mailbox of one incarnation of an actor.
//
// It differs from protoactor's: a sender that waits at the bound does not spin; messages that the
// actor will never handle become dead letters; a panic outside Receive ends the actor and does not
// reach a guardian; Restart ends the actor, Suspend and Resume have no effect.
//
// At most one goroutine runs at a time; it is started by a post to an idle mailbox and ends when
// nothing is queued. For a [Prompt] actor it can be the sender's.
type actorMailbox struct {
	incarnation *incarnation
	bound       int // of messages of all senders but the actor itself; 0: none
	peerBound   int // of messages of other processes
	peerWeight  int // of the heavy ones among these, in bytes
	overflow    Overflow

	invoker    actor.MessageInvoker // set once, before run
	dispatcher actor.Dispatcher
	start      func() // starts run; made once, as to make it allocates

	// The actor's goroutine reads these for each message. They stand apart from the fields that
	// senders write for each: on one cache line the two would slow each other.
	_ mailqueue.CacheLine
	// interrupt makes run look under the lock before its next message: a system message waits, the
	// actor is suspended, or has to stop its children.
	interrupt  atomic.Bool
	waiting    atomic.Bool      // senders wait for room
	heavyBytes atomic.Int64     // bytes of the heavy messages that wait
	cur        *mailqueue.Chunk // where run takes from; run's own
	seen       uint32           // how many messages cur had when run last looked; run's own
	_          mailqueue.CacheLine

	mu            sync.Mutex
	ready         bool // Started is queued; before that nothing runs
	prompt        bool // the actor has started, and is a Prompt
	user          mailqueue.MessageQueue
	system        []any // few at a time
	running       bool
	suspended     bool // the actor has failed: user messages stay where they are
	onHold        bool // the system is suspended: they stay where they are
	handOver      *handOverRequest
	closed        bool          // the actor has ended: user messages are dead letters
	stopsChildren bool          // the actor was killed and has not stopped its children yet
	room          chan struct{} // closed when a waiting sender should look again; nil: no sender waits
	dropped       uint64        // taken out of the queue other than by the actor
	poisoned      bool          // a Poison was queued: no second one does anything
	stopQueued    bool          // a Stop waits in system
}

// The heavy messages of other processes in a mailbox, those of more than lightMessage bytes in
// their frames, have at most maxWeight bytes together, or lightMessage for each place of its bound
// if that is more. One of more bytes than that finds room if no other heavy one waits. Light
// messages are bounded by their number alone.
const (
	maxWeight    = DefaultBound * lightMessage
	lightMessage = 16 << 10
)

// heavyMessage is how a message of more than lightMessage bytes stands in the queue.
type heavyMessage struct {
	message any
	bytes   int
}

// weightOf returns how many bytes may wait in a mailbox with a bound.
func weightOf(bound int) int {
	if bound > math.MaxInt/lightMessage {
		return math.MaxInt
	}
	return max(maxWeight, bound*lightMessage)
}

// RegisterHandlers is called by protoactor when the actor has its PID. Others may have found it by
// then and sent to it; protoactor's own mailbox is not ready for that.
func (m *actorMailbox) RegisterHandlers(invoker actor.MessageInvoker, dispatcher actor.Dispatcher) {
	m.invoker, m.dispatcher = invoker, dispatcher
	run := m.run
	m.start = func() { dispatcher.Schedule(run) }
	m.incarnation.registered(invoker.(actor.Context))
}

// Start is called by protoactor after RegisterHandlers.
func (m *actorMailbox) Start() {}

// UserMessageCount returns how many user messages are queued.
func (m *actorMailbox) UserMessageCount() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.user.Len()
}

// PostUserMessage queues a message of a sender that has no context: an actor's Send or a frame. It
// may wait under the policy Wait.
func (m *actorMailbox) PostUserMessage(message any) {
	err := m.post(noContext, message, false)
	if err != nil {
		m.incarnation.deadLetter(message, err)
	}
}

// post queues message. When it returns an error the message is the caller's to make a dead letter
// of. Under noContext it waits for at most the system's SendWait.
func (m *actorMailbox) post(ctx context.Context, message any, self bool) error {
	if batch, ok := actor.UnwrapEnvelopeMessage(message).(actor.MessageBatch); ok {
		for _, item := range batch.GetMessages() {
			m.PostUserMessage(item)
		}
	}
	m.mu.Lock()
	if !m.closed && (m.bound == 0 || self || m.user.Len() < m.bound || isPill(message)) {
		m.pushLocked(message, ctx != noContext)
		return nil
	}
	return m.overflowLocked(ctx, message, m.bound)
}

// postPeer queues a message of another process, for which every mailbox has a bound, by number and
// by the bytes of their frames. It waits for at most the system's SendWait; after an error the
// message is the caller's.
func (m *actorMailbox) postPeer(message any, bytes int) error {
	if bytes > lightMessage {
		message = &heavyMessage{message, bytes}
	}
	m.mu.Lock()
	if !m.closed && (m.roomLocked(message, m.peerBound) || isPill(message)) {
		m.pushLocked(message, true)
		return nil
	}
	return m.overflowLocked(noContext, message, m.peerBound)
}

// roomLocked reports whether there is room for message, below bound and by its weight.
func (m *actorMailbox) roomLocked(message any, bound int) bool {
	return m.user.Len() < bound && m.fitsWeight(message)
}

// fitsWeight reports whether there is room for message by its weight.
func (m *actorMailbox) fitsWeight(message any) bool {
	h, ok := message.(*heavyMessage)
	if !ok {
		return true
	}
	waits := m.heavyBytes.Load()
	return waits == 0 || waits+int64(h.bytes) <= int64(m.peerWeight)
}

// unwrap returns the message of an entry that was taken out of the queue.
func (m *actorMailbox) unwrap(entry any) any {
	if h, ok := entry.(*heavyMessage); ok {
		m.heavyBytes.Add(-int64(h.bytes))
		return h.message
	}
	return entry
}

// overflowLocked queues message when there is room below bound, or does what the policy says. It
// unlocks m.mu.
func (m *actorMailbox) overflowLocked(ctx context.Context, message any, bound int) error {
	var cancel context.CancelFunc
	for {
		if m.closed {
			m.mu.Unlock()
			return m.incarnation.downError()
		}
		if m.roomLocked(message, bound) {
			m.pushLocked(message, false)
			return nil
		}
		switch m.overflow {
		case DropOldest:
			m.dropOldestLocked(message)
			return nil
		case DropNewest:
			m.mu.Unlock()
			if h, ok := message.(*heavyMessage); ok {
				message = h.message
			}
			m.incarnation.deadLetter(message, ErrFull)
			return nil
		case Fail:
			err := m.fullLocked(bound)
			m.mu.Unlock()
			return err
		case Wait:
		}
		// Set before the last look at the queue: the actor, which takes messages without the lock,
		// looks here after it took one.
		m.waiting.Store(true)
		if m.roomLocked(message, bound) {
			m.pushLocked(message, false)
			return nil
		}
		if m.room == nil {
			m.room = make(chan struct{})
		}
		room := m.room
		m.mu.Unlock()
		if ctx == noContext {
			ctx, cancel = context.WithTimeoutCause(context.Background(), m.incarnation.proc.sendWait, ErrFull)
			defer cancel()
		}
		select {
		case <-room:
		case <-ctx.Done():
			err := context.Cause(ctx)
			if errors.Is(err, ErrFull) {
				m.mu.Lock()
				err = m.fullLocked(bound)
				m.mu.Unlock()
			}
			return err
		}
		m.mu.Lock()
	}
}

// fullError is an ErrFull that says what is full.
type fullError struct {
	most int
	of   string
}

func (e fullError) Error() string {
	return fmt.Sprintf("%v: at most %d %s wait", ErrFull, e.most, e.of)
}
func (fullError) Unwrap() error { return ErrFull }

func (m *actorMailbox) fullLocked(bound int) error {
	if m.user.Len() < bound {
		return fullError{m.peerWeight, "bytes of long messages"}
	}
	return fullError{bound, "messages"}
}

// dropOldestLocked queues message in the place of the one that waited longest, or of as many as its
// weight takes. It unlocks m.mu.
func (m *actorMailbox) dropOldestLocked(message any) {
	var oldest []any
	for len(oldest) == 0 || !m.fitsWeight(message) {
		v, ok := m.user.Pop()
		if !ok { // the actor was quicker
			break
		}
		m.dropped++
		oldest = append(oldest, m.unwrap(v))
	}
	m.pushLocked(message, false)
	for _, v := range oldest {
		if isPill(v) { // the messages before it are handled: it is its turn
			m.incarnation.stop(normal)
			continue
		}
		m.incarnation.deadLetter(v, ErrFull)
	}
}

// isPill reports whether message is a Poison, which ends the actor in its turn. It is let in above
// the bound, and never dropped.
func isPill(message any) bool {
	_, ok := message.(*actor.PoisonPill)
	return ok
}

// pushLocked queues message, wakes the actor and unlocks m.mu. Only one Poison is queued: it is the
// last message that the actor takes. here says that a Prompt actor may run on this goroutine.
func (m *actorMailbox) pushLocked(message any, here bool) {
	switch v := message.(type) {
	case *actor.PoisonPill:
		if m.poisoned {
			m.mu.Unlock()
			return
		}
		m.poisoned = true
	case *heavyMessage:
		m.heavyBytes.Add(int64(v.bytes))
	}
	m.user.Push(message)
	start := m.ready && !m.running && !m.suspended && !m.onHold
	m.running = m.running || start
	here = here && m.prompt
	m.mu.Unlock()
	switch {
	case start && here:
		m.incarnation.work.Store(workBusy)
		if m.burst(promptly) {
			m.dispatcher.Schedule(m.goOn)
		}
	case start:
		m.start()
	}
}

// PostSystemMessage queues a message that overtakes user messages.
func (m *actorMailbox) PostSystemMessage(message any) {
	inc := m.incarnation
	switch msg := message.(type) {
	case *actor.Watch:
		inc.protoWatch(msg.Watcher)
		return
	case *actor.Unwatch:
		inc.removeWatcher(watchKey{msg.Watcher.Address, msg.Watcher.Id, 0})
		return
	case *actor.SuspendMailbox, *actor.ResumeMailbox:
		return
	case *actor.Restart:
		inc.crash(errorReason(errRestart))
		return
	case *actor.Stop:
		inc.setStopReason(normal)
	}
	m.mu.Lock()
	_, stop := message.(*actor.Stop)
	if inc.killed.Load() || stop && m.stopQueued { // one that waits is enough
		m.mu.Unlock()
		return
	}
	m.stopQueued = m.stopQueued || stop
	if _, ok := message.(*actor.Started); ok && !m.ready {
		m.ready = true
		m.system = slices.Insert(m.system, 0, message)
	} else {
		m.system = append(m.system, message)
	}
	m.interrupt.Store(true)
	m.unlockAndRun()
}

// unlockAndRun unlocks m.mu and starts the actor's goroutine, if it does not run.
func (m *actorMailbox) unlockAndRun() {
	start := m.ready && !m.running
	m.running = m.running || start
	m.mu.Unlock()
	if start {
		m.start()
	}
}

// run handles what is queued. It is the actor's goroutine; it ends when nothing is left, or after
// Goexit in a handler, which hands over to a new one.
func (m *actorMailbox) run() {
	m.incarnation.work.Store(workBusy)
	m.goOn()
}

// goOn is run for a goroutine that another one hands over to.
func (m *actorMailbox) goOn() {
	growStack()
	for m.burst(math.MaxInt) {
	}
}

// growStack makes the stack of a new goroutine large enough for what actors mostly do, while there
// is nothing on it to copy. To let it grow in steps took a fifth of the time of an actor that gets
// its messages one by one.
//
//go:noinline
func growStack() {
	var room [8 << 10]byte
	runtime.KeepAlive(&room)
}

// burst handles messages until none is left; or until most have been handled, or one fails: then it
// returns true. The wrapper catches panics of the actor's Receive; those caught here come from
// around it: a continuation of ReenterAfter, an automatic response, a strategy.
func (m *actorMailbox) burst(most int) (again bool) {
	inc := m.incarnation
	returned := false
	defer func() {
		if returned {
			return
		}
		v := recover()
		if v != nil {
			inc.crashOutsideReceive(panicReason(v, debug.Stack()))
		} else { // runtime.Goexit: this goroutine is lost, the actor's queue is not
			inc.crashOutsideReceive(errorReason(errGoexit))
		}
		if inc.handlesSystemMessage {
			inc.endIfStopped()
		}
		if again = v != nil; !again {
			inc.workEnds()
			m.start()
		}
	}()
	for n := 1; ; n++ {
		if n > most {
			returned = true
			return true
		}
		if n%throughput == 0 {
			runtime.Gosched()
		}
		message, system, ok := m.next()
		if !ok {
			returned = true
			return false
		}
		if inc.handlesSystemMessage != system {
			inc.handlesSystemMessage = system // only when it changes: senders read fields on the same cache line
		}
		if system {
			m.invoker.InvokeSystemMessage(message)
			inc.endIfStopped()
		} else if req, ok := message.(*handOverRequest); ok {
			inc.wrapper.handOver(m.invoker.(actor.Context), req)
		} else {
			m.invoker.InvokeUserMessage(message)
		}
	}
}

// next takes the next message, system messages first. When there is none, the actor's goroutine is
// to end.
func (m *actorMailbox) next() (message any, system, ok bool) {
	if m.cur != nil && !m.interrupt.Load() {
		if message, ok = m.cur.Take(&m.seen); ok {
			message = m.unwrap(message)
			if m.waiting.Load() {
				m.mu.Lock()
				m.wakeLocked()
				m.mu.Unlock()
			}
			return message, false, true
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.interrupt.Store(m.suspended || m.onHold)
	if m.stopsChildren {
		m.stopsChildren = false
		m.interrupt.Store(m.suspended || m.onHold || len(m.system) > 0)
		return stopChildrenMessage{}, false, true
	}
	if n := len(m.system); n > 0 {
		message = m.system[0]
		copy(m.system, m.system[1:])
		m.system[n-1] = nil
		if m.system = m.system[:n-1]; n > 1 {
			m.interrupt.Store(true)
		}
		if _, ok := message.(*actor.Stop); ok {
			m.stopQueued = false
		}
		return message, true, true
	}
	if req := m.handOver; req != nil {
		m.handOver = nil
		return req, false, true
	}
	if !m.suspended && !m.onHold {
		if m.cur = m.user.Advance(m.cur); m.cur != nil {
			m.seen = 0
			if message, ok = m.cur.Take(&m.seen); ok {
				message = m.unwrap(message)
				m.wakeLocked()
				return message, false, true
			}
		}
	}
	m.running = false
	m.incarnation.workEnds()
	return nil, false, false
}

// wakeLocked lets waiting senders look again.
func (m *actorMailbox) wakeLocked() {
	m.waiting.Store(false)
	if m.room != nil {
		close(m.room)
		m.room = nil
	}
}

// suspend keeps user messages in the queue: the actor has failed and is stopping.
func (m *actorMailbox) suspend() {
	m.mu.Lock()
	m.suspended = true
	m.interrupt.Store(true)
	m.mu.Unlock()
}

// close refuses user messages from now on and returns those that are queued.
func (m *actorMailbox) close() (queued []any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for {
		v, ok := m.user.Pop()
		if !ok {
			break
		}
		queued = append(queued, m.unwrap(v))
	}
	m.dropped += uint64(len(queued))
	m.wakeLocked()
	return queued
}

// hold keeps user messages in the queue from now on, and has the actor take req first.
func (m *actorMailbox) hold(req *handOverRequest) {
	m.mu.Lock()
	m.onHold, m.handOver = true, req
	m.interrupt.Store(true)
	m.unlockAndRun()
}

// release lets the actor handle user messages again.
func (m *actorMailbox) release() {
	m.mu.Lock()
	m.onHold, m.handOver = false, nil
	m.unlockAndRun()
}

// idle reports whether the actor has nothing to do, and how many messages it took so far.
func (m *actorMailbox) idle() (taken uint64, idle bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.user.Taken(), !m.running && m.user.Len() == 0 && len(m.system) == 0
}

// queued returns the user messages that wait, of an actor on hold.
func (m *actorMailbox) queued() (list []any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.user.Each(func(v any) {
		if h, ok := v.(*heavyMessage); ok {
			v = h.message
		}
		list = append(list, v)
	})
	return list
}

// stopChildren has a killed actor stop its children, as soon as its goroutine is free.
func (m *actorMailbox) stopChildren() {
	m.mu.Lock()
	m.stopsChildren = true
	m.system = nil
	m.interrupt.Store(true)
	m.unlockAndRun()
}

// setPrompt lets senders run the actor.
func (m *actorMailbox) setPrompt() {
	m.mu.Lock()
	m.prompt = true
	m.mu.Unlock()
}
