package actors

import (
	"context"
	"runtime"
	"runtime/debug"
	"sync"

	"github.com/asynkron/protoactor-go/actor"
)

// Overflow says what happens to a user message for which a bounded mailbox has
// no room. System messages (Stop, Terminated) are never bounded.
type Overflow uint8

const (
	// Wait makes the sender wait for room, without spinning: [System.Send] and
	// [System.Ask] under their context, an actor's own Send for at most
	// [Config].SendWait, a message from another process likewise (it holds up the
	// data lane of that process, so that its senders wait in turn). After that the
	// message is a dead letter with [ErrFull]. What an actor sends to itself
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
	switch o {
	case Wait:
		return "wait"
	case DropOldest:
		return "drop oldest"
	case DropNewest:
		return "drop newest"
	case Fail:
		return "fail"
	}
	return "overflow ?"
}

// noContext is the context of a Send that has none, an actor's or a peer's. It
// waits for at most SendWait.
var noContext context.Context = none{context.Background()}

type none struct{ context.Context }

// throughput is how many messages an actor handles before it lets others run.
const throughput = 300

// mailbox is the actor.Mailbox of one incarnation of an actor.
//
// It differs from protoactor's in what happens at the edges: a bound that does
// not spin, messages that the actor will never handle become dead letters, a
// panic outside Receive ends the actor instead of reaching a guardian, and
// Restart, Suspend and Resume have no effect but the end of the actor.
//
// At most one goroutine runs at a time; it is started by a post to an idle
// mailbox and ends when nothing is queued.
type mailbox struct {
	cell     *cell
	bound    int // 0: none
	overflow Overflow

	invoker    actor.MessageInvoker // set once, before run
	dispatcher actor.Dispatcher

	mu        sync.Mutex
	ready     bool // Started is queued; before that nothing runs
	user      queue
	system    queue
	running   bool
	held      bool          // the actor has failed: user messages stay where they are
	closed    bool          // the actor has ended: user messages are dead letters
	reaping   bool          // the actor was killed and has not stopped its children yet
	room      chan struct{} // closed when a waiting sender should look again; nil: nobody waits
	processed uint64
}

var _ actor.Mailbox = (*mailbox)(nil)

// RegisterHandlers is called by protoactor when the actor has its PID. Others may
// have found it by then and sent to it; protoactor's own mailbox is not ready for that.
func (m *mailbox) RegisterHandlers(invoker actor.MessageInvoker, dispatcher actor.Dispatcher) {
	m.invoker, m.dispatcher = invoker, dispatcher
	m.cell.born(invoker.(actor.Context))
}

// Start is called by protoactor after RegisterHandlers.
func (m *mailbox) Start() {}

// UserMessageCount returns how many user messages are queued.
func (m *mailbox) UserMessageCount() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.user.len()
}

// PostUserMessage queues a message of a sender that has no context: an actor's
// Send or a frame. It may wait under the policy Wait.
func (m *mailbox) PostUserMessage(message any) {
	err := m.post(noContext, message, false)
	if err != nil {
		m.cell.dead(message, err)
	}
}

// post queues message. When it returns an error the message is the caller's to
// make a dead letter of. Under noContext it waits for at most the system's SendWait.
func (m *mailbox) post(ctx context.Context, message any, self bool) error {
	if batch, ok := actor.UnwrapEnvelopeMessage(message).(actor.MessageBatch); ok {
		for _, item := range batch.GetMessages() {
			m.PostUserMessage(item)
		}
	}
	var cancel context.CancelFunc
	for {
		m.mu.Lock()
		if m.closed {
			m.mu.Unlock()
			return m.cell.downError()
		}
		if m.bound == 0 || self || m.user.len() < m.bound {
			m.pushLocked(message)
			return nil
		}
		switch m.overflow {
		case DropOldest:
			oldest := m.user.pop()
			m.pushLocked(message)
			m.cell.dead(oldest, ErrFull)
			return nil
		case DropNewest:
			m.mu.Unlock()
			m.cell.dead(message, ErrFull)
			return nil
		case Fail:
			m.mu.Unlock()
			return ErrFull
		case Wait:
		}
		if m.room == nil {
			m.room = make(chan struct{})
		}
		room := m.room
		m.mu.Unlock()
		if ctx == noContext {
			ctx, cancel = context.WithTimeoutCause(context.Background(), m.cell.s.cfg.SendWait, ErrFull)
			defer cancel()
		}
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// pushLocked queues message, wakes the actor and unlocks m.mu.
func (m *mailbox) pushLocked(message any) {
	m.user.push(message)
	start := m.ready && !m.running && !m.held
	m.running = m.running || start
	m.mu.Unlock()
	if start {
		m.dispatcher.Schedule(m.run)
	}
}

// PostSystemMessage queues a message that overtakes user messages.
func (m *mailbox) PostSystemMessage(message any) {
	c := m.cell
	switch msg := message.(type) {
	case *actor.Watch:
		c.watch(msg.Watcher)
		return
	case *actor.Unwatch:
		c.unwatch(msg.Watcher)
		return
	case *actor.SuspendMailbox, *actor.ResumeMailbox:
		return
	case *actor.Restart:
		c.crash(errorReason(errRestart))
		return
	case *actor.Stop:
		c.decide(normal)
	}
	m.mu.Lock()
	if c.killed.Load() {
		m.mu.Unlock()
		return
	}
	if _, ok := message.(*actor.Started); ok && !m.ready {
		m.ready = true
		m.system.unshift(message)
	} else {
		m.system.push(message)
	}
	start := m.ready && !m.running
	m.running = m.running || start
	m.mu.Unlock()
	if start {
		m.dispatcher.Schedule(m.run)
	}
}

// run handles what is queued. It is the actor's goroutine; it ends when nothing
// is left, or after Goexit in a handler, which hands over to a new one.
func (m *mailbox) run() {
	for n := 0; ; n++ {
		if n == throughput {
			n = 0
			runtime.Gosched()
		}
		message, system, ok := m.next()
		if !ok {
			return
		}
		m.invoke(message, system)
		if system {
			m.cell.settle()
		}
	}
}

// next takes the next message, system messages first.
func (m *mailbox) next() (message any, system, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reaping {
		m.reaping = false
		return reaping{}, false, true
	}
	if m.system.len() > 0 {
		return m.system.pop(), true, true
	}
	if m.user.len() > 0 && !m.held {
		message = m.user.pop()
		m.processed++
		if m.room != nil {
			close(m.room)
			m.room = nil
		}
		return message, false, true
	}
	m.running = false
	return nil, false, false
}

// invoke hands one message to protoactor. The guard catches what the actor's
// Receive panics with; what is caught here came from around it: a continuation
// of ReenterAfter, an automatic response, a strategy.
func (m *mailbox) invoke(message any, system bool) {
	c := m.cell
	c.system = system
	returned := false
	defer func() {
		if returned {
			return
		}
		if v := recover(); v != nil {
			c.backstop(panicReason(v, debug.Stack()))
			return
		}
		// runtime.Goexit: this goroutine is lost, the actor's queue is not.
		c.backstop(errorReason(errGoexit))
		c.settle()
		m.dispatcher.Schedule(m.run)
	}()
	if system {
		m.invoker.InvokeSystemMessage(message)
	} else {
		m.invoker.InvokeUserMessage(message)
	}
	returned = true
}

// hold keeps user messages in the queue: the actor has failed and is stopping.
func (m *mailbox) hold() {
	m.mu.Lock()
	m.held = true
	m.mu.Unlock()
}

// close refuses user messages from now on and returns those that are queued.
func (m *mailbox) close() (queued []any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for m.user.len() > 0 {
		queued = append(queued, m.user.pop())
	}
	if m.room != nil {
		close(m.room)
		m.room = nil
	}
	return queued
}

// reap has a killed actor stop its children, as soon as its goroutine is free.
func (m *mailbox) reap() {
	m.mu.Lock()
	m.reaping = true
	m.system = queue{}
	start := m.ready && !m.running
	m.running = m.running || start
	m.mu.Unlock()
	if start {
		m.dispatcher.Schedule(m.run)
	}
}

// queue is a ring of messages. It grows by doubling and gives its memory back
// when a burst is over.
type queue struct {
	ring  []any
	first int
	n     int
}

const keepRing = 1024 // entries that an empty queue may keep

func (q *queue) len() int { return q.n }

func (q *queue) push(v any) {
	q.grow()
	q.ring[(q.first+q.n)&(len(q.ring)-1)] = v
	q.n++
}

// unshift puts v first.
func (q *queue) unshift(v any) {
	q.grow()
	q.first = (q.first - 1) & (len(q.ring) - 1)
	q.ring[q.first] = v
	q.n++
}

func (q *queue) grow() {
	if q.n == len(q.ring) {
		ring := make([]any, max(8, 2*len(q.ring)))
		k := copy(ring, q.ring[q.first:])
		copy(ring[k:], q.ring[:q.first])
		q.ring, q.first = ring, 0
	}
}

func (q *queue) pop() any {
	v := q.ring[q.first]
	q.ring[q.first] = nil
	q.first = (q.first + 1) & (len(q.ring) - 1)
	q.n--
	if q.n == 0 && len(q.ring) > keepRing {
		q.ring, q.first = nil, 0
	}
	return v
}
