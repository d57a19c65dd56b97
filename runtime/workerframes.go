package coppice

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/inflight"
	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/runtime/internal/stacks"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// killAfterLoss is how long after Config.OrphanDrain the master kills a worker that lives but has
// lost its channel: the master can neither send to it nor hear from it.
const killAfterLoss = time.Second

// transport returns the configuration of the master's end of the worker's channel.
func (w *poolWorker) transport() fdipc.Config {
	cfg := childproto.ConnConfig(w.handle, w.channelLost)
	cfg.Suspendable = w.driver.pool.forksItself() // an upgrade does it
	cfg.HandshakeTimeout = -1                     // a start has its own deadline, which may be long
	cfg.Ready = func(*fdipc.Conn) { close(w.handshaken) }
	cfg.NoFiles = w.handlesLost
	return cfg
}

// handle takes a frame of the worker's, on the channel's reader. The worker is not trusted: its
// frames can be refused, and cost no other process anything.
func (w *poolWorker) handle(conn *fdipc.Conn, f *fdipc.Frame) {
	<-w.attached // the worker has its hello and may send before others know of it
	var err error
	if childproto.OwnKind(f.Kind) {
		err = childproto.WithinBounds(f)
	}
	switch {
	case err != nil:
	case f.Kind == childproto.FrameReady:
		w.setReady()
	case f.Kind == childproto.FrameDeclaration:
		err = childproto.Handle(f, w.declarationFrame)
	case f.Kind == childproto.FrameSpareReady:
		w.setStandby()
	case f.Kind == childproto.FrameRequestsSpent:
		w.requestsDone.Do(func() { w.driver.markDue(w, "requests") })
	case f.Kind == childproto.FrameStopSignal:
		err = childproto.Handle(f, func(s childproto.StopSignalFrame) {
			w.stopSignal.Do(func() { w.driver.onStopSignal(w, supervisor.Cut(s.Signal)) })
		})
	case f.Kind == childproto.FrameLinkLost:
		err = childproto.Handle(f, func(l childproto.LinkLostFrame) {
			l.Why = supervisor.Cut(l.Why)
			w.driver.children.linkLost(w, l)
		})
	case f.Kind == childproto.FrameExitNotice:
		err = childproto.Handle(f, func(n childproto.ExitNotice) {
			n = n.Cut()
			w.exitNotice.CompareAndSwap(nil, &n)
		})
	case f.Kind == childproto.FrameForcedConns:
		err = childproto.Handle(f, func(n childproto.ExitNotice) { w.forced.Store(int64(n.Cut().Forced)) })
	case f.Kind == childproto.FrameStopAccepting:
		w.setDrained()
	case f.Kind == childproto.FrameHeartbeat:
		err = childproto.Handle(f, func(h childproto.HeartbeatFrame) {
			h.Unwell = supervisor.Cut(h.Unwell)
			w.heartbeats.Record(h)
		})
	case f.Kind == childproto.FrameGuardedKey:
		err = childproto.Handle(f, func(k childproto.GuardedKey) {
			if w.driver.kind.ofConfig {
				w.driver.guard.told(w, k)
			} else {
				w.driver.children.guard(k.Pool).told(nil, k)
			}
		})
	case f.Kind == childproto.FrameStacks:
		err = childproto.Handle(f, func(s childproto.StacksFrame) {
			s.Text = s.Text[:min(len(s.Text), stacks.Max)]
			w.stacks.Finish(s.N, s, nil)
		})
	case f.Kind == childproto.FrameSpans:
		err = w.telemetry.Receive(tracing.Spans, bytes.Clone(f.Payload))
	case f.Kind == childproto.FrameMetrics:
		err = w.telemetry.Receive(tracing.Metrics, bytes.Clone(f.Payload))
	case w.driver.children.system.HandleFrame(w.address(), f):
	case w.driver.children.sockets.HandleFrame(w.sibling().Worker, conn, f):
	default:
		f.Refuse(fdipc.ReasonUnknown) // from a newer child: it is skipped by rule
	}
	if err != nil {
		f.Refuse(fdipc.ReasonUnknown)
		if n := w.badFrames.Add(1); isPowerOfTwo(n) {
			w.driver.log.Error("bad frame from a child", "name", w.name(), "id", w.hello.ID, "frames", n, "err", err)
		}
	}
}

// handlesLost takes a frame whose descriptors did not arrive, because the master had no room for
// them.
func (w *poolWorker) handlesLost(_ *fdipc.Conn, f *fdipc.Frame) {
	<-w.attached
	if n := w.framesLost.Add(1); isPowerOfTwo(n) {
		w.driver.log.Error("out of descriptors: the descriptors that a child has sent are lost, and it gets an error", "name", w.name(), "id", w.hello.ID, "frames", n)
	}
	if !w.driver.children.system.HandlesLost(w.address(), f) {
		w.driver.children.sockets.HandlesLost(w.sibling().Worker, f)
	}
}

// isPowerOfTwo limits the lines that a child can cause in the log: its first, second, fourth,
// eighth event is logged, and so on.
func isPowerOfTwo(n uint64) bool { return n&(n-1) == 0 }

// channelLost is called when the channel has ended. The worker may not have ended yet. If something
// other than the worker ended the channel, that is logged, because the worker cannot be asked any
// more.
func (w *poolWorker) channelLost(_ *fdipc.Conn, err error) {
	if err != nil && !childproto.IsEnd(err) {
		w.channelErr.Store(&err)
		w.driver.log.Error("the channel of a child is ended", "name", w.name(), "id", w.hello.ID, "err", err)
	}
	w.unlessEnded(max(w.driver.orphanDrain, 0)+killAfterLoss, func() { w.killFor(KilledChannel) })
}

// sendHello sends the first frame: the worker's identity, the table in which it notes its open
// spans, if it gets a table, and a configuration that is too long for a frame. It is called once.
func (w *poolWorker) sendHello(ctx context.Context) (err error) {
	hello := w.hello
	var handles []*fdipc.Handle
	if w.config != nil {
		handles = append(handles, w.config)
	}
	defer func() {
		if err != nil {
			for _, h := range handles {
				_ = h.Close()
			}
		}
	}()
	if table := w.telemetry.Table(); table != nil {
		h, err := fdipc.HandleOf(table)
		if err != nil {
			return errors.Join(err, table.Close())
		}
		handles = slices.Insert(handles, 0, h)
	}
	if len(hello.Config) > inlineConfig {
		hello.ConfigSize, hello.Config = len(hello.Config), nil
	}
	return w.conn.Send(ctx, childproto.NewFrame(childproto.FrameHello, hello, handles...))
}

// sendGuard gives a worker that is a process the table of its requests, and the keys that it is to
// refuse. Without them it works as well.
func (w *poolWorker) sendGuard(ctx context.Context) {
	if !w.driver.kind.ofConfig || w.backend.pid() == 0 {
		return
	}
	table, f, err := inflight.New()
	if err == nil {
		var h *fdipc.Handle
		if h, err = fdipc.HandleOf(f); err != nil {
			_ = f.Close() // a file in memory
		} else if err = w.conn.Send(ctx, childproto.NewFrame(childproto.FrameGuard, childproto.GuardFrame{}, h)); err != nil {
			_ = h.Close()
		}
		w.serving = table
	}
	if err != nil {
		w.driver.log.Debug("a worker has no table of its requests", "name", w.name(), "err", err)
		return
	}
	w.driver.guard.join(w)
}

// endGuard returns the requests that the worker was serving when it ended, the oldest first.
func (w *poolWorker) endGuard(exit Exit) (requests []inflight.Served) {
	if w.serving == nil {
		return nil
	}
	w.judging.Wait() // it has seen the end of the process
	requests = w.serving.Read()
	slices.SortFunc(requests, func(a, b inflight.Served) int { return a.Began.Compare(b.Began) })
	var died []inflight.Served
	if w.diedOfItself(exit) && (w.overdue.Load() == nil || w.endedAbruptly(exit)) {
		died = slices.DeleteFunc(slices.Clone(requests), func(r inflight.Served) bool {
			return w.hung.Load() == nil && time.Since(r.Began) >= harmlessAfter || slices.Contains(w.overdueRequests, r) // which the guard knows
		})
	}
	w.driver.guard.left(w, w.reason.String(), died)
	w.serving.Close()
	w.serving = nil
	return requests
}

// replaceOverdue has the worker replaced for requests over their hard deadlines.
func (w *poolWorker) replaceOverdue(why error, served []inflight.Served) {
	w.overdueRequests = served
	w.overdue.Store(&why)
	w.driver.guard.left(w, why.Error(), served)
	if w.hello.Alone { // no slot waits for another
		w.driver.step(pool.Event{Kind: pool.Recall})
		return
	}
	w.driver.markDue(w, "request")
}

// number is for requestGuard.
func (w *poolWorker) number() uint64 { return uint64(w.hello.ID) }

// endedAbruptly reports whether the worker ended by itself without a word, as by a panic: not at
// the end of its drain.
func (w *poolWorker) endedAbruptly(exit Exit) bool {
	return exit.Killed == "" && w.exitNotice.Load() == nil && !w.backend.sent().has(exit.Signal)
}

// lateRequest returns which request was over its hard deadline when the worker ended, the oldest,
// as an error; nil if none was.
func (w *poolWorker) lateRequest() error {
	now, grace := w.serving.Now(), childproto.Timeouts(w.driver.pool.RequestTimeout).Grace()
	var late inflight.Served
	for _, r := range w.serving.InFlight(nil) {
		s, lasts := w.serving.Served(r)
		if over := r.Due != 0 && r.Due+grace <= now || slices.Contains(w.overdueRequests, s); lasts && over && (late.Key == "" || s.Began.Before(late.Began)) {
			late = s
		}
	}
	if late.Key == "" {
		return nil
	}
	return lateError(late.Key, time.Since(late.Began).Round(time.Millisecond))
}

// servesFor is for requestGuard, until endGuard.
func (w *poolWorker) servesFor(key string) time.Duration {
	for _, r := range w.serving.Read() {
		if r.Key == key {
			return time.Since(r.Began)
		}
	}
	return 0
}

// diedOfItself reports whether the worker ended by what ran in it: not because it was asked to, nor
// killed for something else.
func (w *poolWorker) diedOfItself(exit Exit) bool {
	itself := slices.Contains([]KillReason{"", KilledMemory, KilledHung, KilledCall, KilledRequest}, exit.Killed)
	return itself && !w.reason.IsNormal() && (!w.killedOutside || exit.OOM != "")
}

// sendOrReplace sends a frame that the worker must get, without waiting. If the worker reads so
// little that there is no room for the frame, it is replaced: it does not have everything that it
// was sent.
func (w *poolWorker) sendOrReplace(f *fdipc.Frame) error {
	err := w.conn.TrySend(f)
	if errors.Is(err, fdipc.ErrFull) {
		w.driver.log.Error("a child does not read what the master says: it is replaced", "name", w.name(), "id", w.hello.ID)
		w.killFor(KilledNotReading)
	}
	return err
}

// sendLink gives the worker its end of a channel to a sibling. It takes ownership of end. A worker
// that has ended, or ends now, needs no link.
func (w *poolWorker) sendLink(to childproto.Sibling, end *os.File) error {
	h, err := fdipc.HandleOf(end)
	if err != nil {
		return errors.Join(err, end.Close())
	}
	if err := w.sendOrReplace(childproto.NewFrame(childproto.FrameLink, to, h)); err != nil {
		err = errors.Join(err, h.Close())
		if errors.Is(err, fdipc.ErrFull) || childproto.IsEnd(err) {
			return nil
		}
		return err
	}
	return nil
}

// askStacks asks the worker for the stacks of its goroutines, or for the profile that q names.
func (w *poolWorker) askStacks(ctx context.Context, q childproto.StacksFrame) (none childproto.StacksFrame, err error) {
	if w.driver.pool.Command != nil {
		return none, fmt.Errorf("%w: it is another program", ErrUnsupported)
	}
	call, err := w.stacks.Begin(struct{}{})
	if err != nil {
		return none, err
	}
	defer call.Cancel()
	defer func() {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			err = fmt.Errorf("it has not answered: it hangs, or a signal has stopped it: %w", err)
		}
	}()
	q.N = call.ID
	if err := w.conn.Send(ctx, childproto.NewFrame(childproto.FrameStacks, q)); err != nil {
		if !childproto.IsEnd(err) {
			return none, err
		}
		select { // the channel breaks before the end is known
		case <-w.done():
			return none, endError(w.reason)
		case <-time.After(deathKnownTimeout):
			return none, err
		}
	}
	answer, err := call.Wait(ctx, w.done())
	if errors.Is(err, fdipc.ErrPeerLost) {
		err = endError(w.reason)
	}
	return answer, err
}

// askProfile asks the worker for what q names.
func (w *poolWorker) askProfile(ctx context.Context, q childproto.StacksFrame) ([]byte, error) {
	answer, err := w.askStacks(ctx, q)
	if err == nil && answer.Data == nil {
		if answer.Err == "" { // of a release that knows no profiles
			answer.Err = ErrUnsupported.Error()
		}
		err = errors.New(answer.Err)
	}
	return answer.Data, err
}
