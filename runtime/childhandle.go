package coppice

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/liveness"
	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// killAfterLoss is how long after Config.OrphanDrain a child whose channel is
// lost, but who lives, is killed: it can be neither asked nor heard any more.
const killAfterLoss = time.Second

// cutDrainTimeout is how long a worker whose drain is cut short has to end.
const cutDrainTimeout = time.Second

// idleShare is the part of a drain for which a worker that nobody replaces keeps
// connections without a request.
const idleShare = 20

// backend is what a child consists of: a process, or a goroutine of the master.
type backend interface {
	pid() int
	asked(how string)      // is told that it was asked to end
	terminate()            // the last warning: end at once
	abort()                // show where every goroutine is, and end
	kill()                 // without asking
	done() <-chan struct{} // closed when it has ended and its output is read
	exit() Exit            // how, after done
	sent() signals         // by us, until done
	printedLast() []string
	leaked() <-chan struct{}
	fillReport(*CrashReport)        // after done: adds when it lived and what it left
	waited() (time.Duration, error) // for CPUs, until now
	traced() bool                   // by a debugger
}

// childHandle is one child of the tree from the master's side: asked to stop by a frame,
// warned by SIGTERM at the end of its drain, killed when its time is over.
type childHandle struct {
	driver   *poolDriver // of its pool
	hello    childproto.Hello
	config   *fdipc.Handle              // a long configuration for a process; sayWelcome's
	assigned atomic.Pointer[assignment] // where it sits; a spare's changes once
	conn     *fdipc.Conn
	backend  backend

	telemetry tracing.ChildTelemetry // ended by awaitEnd, or by whoever finds that there is no backend

	placed          bool                                // a worker that knows its place; guarded by children.mu
	link            linkHealth                          // of a worker; likewise
	framesLost      atomic.Uint64                       // frames whose descriptors the master had no room for
	forced          atomic.Int64                        // connections that its drain had cut by its deadline
	relinked        atomic.Int64                        // times that it got another link for a broken one
	retired         atomic.Bool                         // nobody takes its place, or somebody has: its end leaves no gap
	onRequestsSpent atomic.Pointer[func()]              // called when it has had its share of requests
	onStopSignal    atomic.Pointer[func(signal string)] // called when a signal from outside has told it to end

	standby     chan struct{} // of a spare: closed when it waits for a place
	setStandby  func()
	handshaken  chan struct{} // closed when the channel's handshake is over: descriptors can be offered
	attached    chan struct{} // closed when its hello is sent and it is known to the others, or has ended before
	ready       chan struct{} // closed when it said that it does its work
	setReady    func()
	linkedToAll chan struct{} // of the listener process: closed when it has its links and sockets, or never will
	drained     chan struct{} // of the listener process: closed when nothing is unclaimed any more
	setDrained  func()
	askedStop   atomic.Bool
	killed      atomic.Pointer[KillReason] // why we did; nil = we did not
	hung        atomic.Pointer[error]      // why, when it hangs and is ended for it
	channelErr  atomic.Pointer[error]      // what ended its channel, if not the child
	success     []int                      // exit codes that are as good as 0
	exitNotice  atomic.Pointer[childproto.ExitNotice]
	badFrames   atomic.Uint64 // frames that could not be understood
	heartbeats  liveness.Answers
	stacks      stackCalls

	done   chan struct{} // closed when it has ended and is forgotten
	reason supervisor.Reason
	exit   Exit
}

func newChildHandle(c *poolDriver, w childproto.Hello) *childHandle {
	p := &childHandle{
		driver: c, hello: w, success: c.pool.SuccessExit, attached: make(chan struct{}), handshaken: make(chan struct{}), standby: make(chan struct{}),
		ready: make(chan struct{}), linkedToAll: make(chan struct{}), drained: make(chan struct{}), done: make(chan struct{}),
	}
	p.assigned.Store(&assignment{name: w.Name, slot: w.Slot, incarnation: w.Incarnation})
	p.setStandby = sync.OnceFunc(func() { close(p.standby) })
	p.setReady = sync.OnceFunc(func() {
		close(p.ready)
		go p.watch() // ends with the child
	})
	p.setDrained = sync.OnceFunc(func() { close(p.drained) })
	return p
}

// assignment is what a child is in its pool.
type assignment struct {
	name        string
	slot        int
	incarnation int
}

// name is the child's registered name, or what it has before it has one.
func (p *childHandle) name() string { return p.assigned.Load().name }

// sibling is what the others are told of the child.
func (p *childHandle) sibling() childproto.Sibling {
	w, at := p.hello, p.assigned.Load()
	w.Name, w.Slot, w.Incarnation = at.name, at.slot, at.incarnation
	return w.Sibling()
}

// address is the child's actor address.
func (p *childHandle) address() string { return strconv.Itoa(p.hello.ID) }

// transport is the configuration of the master's end of the channel.
func (p *childHandle) transport() fdipc.Config {
	cfg := childproto.ConnConfig(p.handle, p.channelLost)
	cfg.HandshakeTimeout = -1 // a start has a deadline of its own, and perhaps a long one
	cfg.Ready = func(*fdipc.Conn) { close(p.handshaken) }
	cfg.NoFiles = p.handlesLost
	return cfg
}

// handle takes a frame of the child's, on the channel's reader. The child is not
// trusted: what it sends can be refused, and costs nobody else anything.
func (p *childHandle) handle(conn *fdipc.Conn, f *fdipc.Frame) {
	<-p.attached // the child has its hello and may speak before others know of it
	var err error
	if childproto.OwnKind(f.Kind) {
		err = childproto.WithinBounds(f)
	}
	switch {
	case err != nil:
	case f.Kind == childproto.FrameReady:
		p.setReady()
	case f.Kind == childproto.FrameSpareReady:
		p.setStandby()
	case f.Kind == childproto.FrameRequestsSpent:
		if spent := p.onRequestsSpent.Load(); spent != nil {
			(*spent)()
		}
	case f.Kind == childproto.FrameStopSignal:
		var o childproto.StopSignalFrame
		if o, err = childproto.Decode[childproto.StopSignalFrame](f); err == nil {
			if ordered := p.onStopSignal.Load(); ordered != nil {
				(*ordered)(supervisor.Cut(o.Signal))
			}
		}
	case f.Kind == childproto.FrameLinkLost:
		var u childproto.LinkLostFrame
		if u, err = childproto.Decode[childproto.LinkLostFrame](f); err == nil {
			u.Why = supervisor.Cut(u.Why)
			p.driver.children.linkLost(p, u)
		}
	case f.Kind == childproto.FrameExitNotice:
		var bye childproto.ExitNotice
		if bye, err = childproto.Decode[childproto.ExitNotice](f); err == nil {
			bye = bye.Cut()
			p.exitNotice.CompareAndSwap(nil, &bye)
		}
	case f.Kind == childproto.FrameForcedConns:
		var bye childproto.ExitNotice
		if bye, err = childproto.Decode[childproto.ExitNotice](f); err == nil {
			p.forced.Store(int64(bye.Cut().Forced))
		}
	case f.Kind == childproto.FrameStopAccepting:
		p.setDrained()
	case f.Kind == childproto.FrameHeartbeat:
		var b childproto.HeartbeatFrame
		if b, err = childproto.Decode[childproto.HeartbeatFrame](f); err == nil {
			b.Unwell = supervisor.Cut(b.Unwell)
			p.heartbeats.Record(b)
		}
	case f.Kind == childproto.FrameStacks:
		var s childproto.StacksFrame
		if s, err = childproto.Decode[childproto.StacksFrame](f); err == nil {
			s.Text = s.Text[:min(len(s.Text), childproto.MaxStacks)]
			p.stacks.answer(s)
		}
	case f.Kind == childproto.FrameSpans:
		err = p.telemetry.Receive(tracing.Spans, bytes.Clone(f.Payload))
	case f.Kind == childproto.FrameMetrics:
		err = p.telemetry.Receive(tracing.Metrics, bytes.Clone(f.Payload))
	case p.driver.children.system.HandleFrame(p.address(), f):
	case p.driver.children.sockets.HandleFrame(p.sibling().Worker, conn, f):
	default:
		f.Refuse(fdipc.ReasonUnknown) // a newer child's: skipped by rule
	}
	if err != nil {
		f.Refuse(fdipc.ReasonUnknown)
		if n := p.badFrames.Add(1); isPowerOfTwo(n) {
			p.driver.log.Error("bad frame from a child", "name", p.name(), "id", p.hello.ID, "frames", n, "err", err)
		}
	}
}

// handlesLost takes a frame whose descriptors did not arrive: the master has no room for them.
func (p *childHandle) handlesLost(_ *fdipc.Conn, f *fdipc.Frame) {
	<-p.attached
	if n := p.framesLost.Add(1); isPowerOfTwo(n) {
		p.driver.log.Error("out of descriptors: what a child has sent is lost, and it is told so", "name", p.name(), "id", p.hello.ID, "frames", n)
	}
	if !p.driver.children.system.HandlesLost(p.address(), f) {
		p.driver.children.sockets.HandlesLost(p.sibling().Worker, f)
	}
}

// isPowerOfTwo bounds the lines that a child can make the log have: the first time
// is told, the second, the fourth, the eighth, and so on.
func isPowerOfTwo(n uint64) bool { return n&(n-1) == 0 }

// channelLost is told that the channel is gone. That is not yet the child's end. What ended it, if
// not the child, is said: the child cannot be asked any more.
func (p *childHandle) channelLost(_ *fdipc.Conn, err error) {
	if err != nil && !childproto.IsEnd(err) {
		p.channelErr.Store(&err)
		p.driver.log.Error("the channel of a child is ended", "name", p.name(), "id", p.hello.ID, "err", err)
	}
	p.unlessEnded(max(p.driver.orphanDrain, 0)+killAfterLoss, func() { p.killFor(KilledChannel) })
}

// unlessEnded calls f after d, if the child lives until then.
func (p *childHandle) unlessEnded(d time.Duration, f func()) {
	timer := time.AfterFunc(d, f)
	go func() { // ends with the child
		<-p.done
		timer.Stop()
	}()
}

// awaitEnd waits for the child's end, from which it makes the exit reason.
func (p *childHandle) awaitEnd() {
	<-p.backend.done()
	had := p.crashContext()
	p.conn.PeerGone()
	select {
	case <-p.conn.Done(): // its last frames are read
	case <-time.After(process.Linger): // a descendant of it has the channel
	}
	_ = p.conn.Close()
	p.exit = p.backend.exit()
	p.exit.killedFor(&p.killed)
	p.reason = p.exitReason()
	at := p.telemetry.Ended(tracing.End{
		At: time.Now(), PID: p.backend.pid(), Type: p.reason.Kind.String(), Reason: p.reason.String(),
	})
	p.driver.lifecycle.keepServed(p.name(), at)
	p.reportCrash(had, at)
	<-p.attached // which forget undoes
	p.driver.children.remove(p)
	close(p.done)
}

// exitReason makes the exit reason: what the child said and how it ended, or why we
// ended it.
func (p *childHandle) exitReason() supervisor.Reason {
	r := p.statedReason()
	if hung := p.hung.Load(); hung != nil {
		r.Cause = &hangError{p.exit, *hung}
		if r.IsNormal() {
			r.Kind = supervisor.Error
		}
	}
	if broken := p.channelErr.Load(); broken != nil && p.exit.Killed == KilledChannel {
		r.Cause = &exitError{p.exit, fmt.Sprintf("%s: %v", KilledChannel, *broken)}
	}
	return r
}

// statedReason makes the exit reason of what the child said and how it ended. Its word
// counts when the end agrees with it.
func (p *childHandle) statedReason() supervisor.Reason {
	r := p.exit.reason(endContext{p.askedStop.Load(), p.backend.sent(), p.success})
	bye := p.exitNotice.Load()
	if bye == nil && p.exit.Code == exitCut && p.exit.Signal == 0 && !r.IsNormal() {
		return supervisor.Reason{Kind: supervisor.Error, Cause: &exitError{p.exit, "the channel to the master has ended"}}
	}
	if bye == nil || !p.exit.agrees(bye.Kind) {
		return r
	}
	switch bye.Kind {
	case childproto.NoticeNormal:
		return supervisor.Reason{Kind: supervisor.Normal, Cause: r.Cause}
	case childproto.NoticeShutdown:
		return supervisor.Reason{Kind: supervisor.Shutdown, Cause: r.Cause}
	case childproto.NoticePanic:
		value, stack, _ := strings.Cut(strings.TrimPrefix(bye.Text, childproto.PanicMark), "\n\n")
		return supervisor.Reason{Kind: supervisor.Panic, Value: value, Stack: stack}
	case childproto.NoticeError, childproto.NoticeUnfit:
		return supervisor.Reason{Kind: supervisor.Error, Cause: &exitError{p.exit, bye.Text}}
	}
	return r
}

// notReadyError is the error of a child that did not become ready. When it has
// ended that is why, and not err, which is what the master met meanwhile.
func (p *childHandle) notReadyError(err error) error {
	if p.endedAfter(err) {
		return fmt.Errorf("coppice: %s ended before it was ready: %w", p.name(), p.endError())
	}
	return fmt.Errorf("coppice: %s: %w", p.name(), err)
}

// deathKnownTimeout bounds how long the death of a child is waited for whose channel broke.
const deathKnownTimeout = 2 * time.Second

// endedAfter tells whether the child has ended, of which err, that the master met, is then
// but a sign. A channel breaks before the end is known: that is waited for.
func (p *childHandle) endedAfter(err error) bool {
	if childproto.IsEnd(err) {
		timer := time.NewTimer(deathKnownTimeout)
		defer timer.Stop()
		select {
		case <-p.done:
		case <-timer.C:
		}
	}
	return p.finished()
}

// outsideSignals are the signals by which something outside the tree ends a process.
var outsideSignals = []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT}

// killedFromOutside reports whether something outside the tree has ended the child.
func (p *childHandle) killedFromOutside() bool {
	return slices.Contains(outsideSignals, p.exit.Signal) && p.exit.Killed == "" && p.hung.Load() == nil && !p.backend.sent().has(p.exit.Signal)
}

// sendHello sends the first frame: who the child is, the table in which it notes its open
// spans, if it is to have one, and a configuration that is too long for a frame. To be called
// once.
func (p *childHandle) sendHello(ctx context.Context) (err error) {
	w := p.hello
	var handles []*fdipc.Handle
	if p.config != nil {
		handles = append(handles, p.config)
	}
	defer func() {
		if err != nil {
			for _, h := range handles {
				_ = h.Close()
			}
		}
	}()
	if table := p.telemetry.Table(); table != nil {
		h, err := fdipc.HandleOf(table)
		if err != nil {
			return errors.Join(err, table.Close())
		}
		handles = slices.Insert(handles, 0, h)
	}
	if len(w.Config) > inlineConfig {
		w.ConfigSize, w.Config = len(w.Config), nil
	}
	return p.conn.Send(ctx, childproto.NewFrame(childproto.FrameHello, w, handles...))
}

// endError is the reason of a child that has ended where it should not have, as an error.
func (p *childHandle) endError() error {
	if err := p.reason.Err(); err != nil {
		return err
	}
	return errors.New(p.reason.String())
}

// sendOrReplace sends what the child has to hear, without waiting. One that reads so little that
// there is no room for it is replaced: what it was told was not all.
func (p *childHandle) sendOrReplace(f *fdipc.Frame) error {
	err := p.conn.TrySend(f)
	if errors.Is(err, fdipc.ErrFull) {
		p.driver.log.Error("a child does not read what the master says: it is replaced", "name", p.name(), "id", p.hello.ID)
		p.killFor(KilledNotReading)
	}
	return err
}

// sendLink gives the child its end of a channel to a sibling. It takes ownership
// of end. A child that has ended meanwhile, or does now, needs no link.
func (p *childHandle) sendLink(to childproto.Sibling, end *os.File) error {
	h, err := fdipc.HandleOf(end)
	if err != nil {
		return errors.Join(err, end.Close())
	}
	if err := p.sendOrReplace(childproto.NewFrame(childproto.FrameLink, to, h)); err != nil {
		err = errors.Join(err, h.Close())
		if errors.Is(err, fdipc.ErrFull) || childproto.IsEnd(err) {
			return nil
		}
		return err
	}
	return nil
}

// Stop asks the child to drain and end. Nobody takes its place, so connections
// without a request are closed soon: their clients would find nobody to ask again.
func (p *childHandle) Stop() { p.requestStop(p.hello.Drain / idleShare) }

// retire asks the child to drain and end, as one whose place another has taken.
func (p *childHandle) retire() { p.requestStop(p.hello.Drain) }

// requestStop asks the child to drain and end, and to close connections without a request
// after idle. Asked again it can only be hurried.
func (p *childHandle) requestStop(idle time.Duration) {
	err := p.conn.TrySend(childproto.NewFrame(childproto.FrameStop, childproto.StopRequest{Drain: p.hello.Drain, Idle: idle}))
	if p.askedStop.Swap(true) {
		return
	}
	if err != nil {
		p.backend.terminate() // it cannot be asked by frame
		return
	}
	p.backend.asked("asked by frame")
	p.unlessEnded(p.hello.Drain, p.endDrain)
}

// endDrain ends the child's drain: what is under way is cut. The frame says so to the child,
// for which a signal alone is one from outside, and the signal to the rest of its group.
func (p *childHandle) endDrain() {
	_ = p.conn.TrySend(childproto.NewFrame(childproto.FrameStop, childproto.StopRequest{})) // a child that is deaf to it is killed
	p.backend.terminate()
}

// cutDrain ends the child's drain now.
func (p *childHandle) cutDrain() {
	p.endDrain()
	p.unlessEnded(cutDrainTimeout, p.Kill)
}

// Kill ends the child: after it was asked in vain, or without.
func (p *childHandle) Kill() {
	if p.askedStop.Load() {
		p.killFor(KilledStop)
	} else {
		p.killFor(KilledBrutal)
	}
}

// killFor ends the child. The first reason counts.
func (p *childHandle) killFor(why KillReason) {
	p.killed.CompareAndSwap(nil, &why)
	p.backend.kill()
}

// Leaked is, once the child is done, a channel that is closed when a goroutine that
// would not end has ended; nil when there is none.
func (p *childHandle) Leaked() <-chan struct{} { return p.backend.leaked() }
