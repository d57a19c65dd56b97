package coppice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/telemetry"
)

// children is the registry of the running child processes. It numbers the children, gives them
// their channels and names, and introduces the workers to the listener process.
type children struct {
	log       *slog.Logger
	shortages *shortages
	stats     *telemetry.Transport

	// Set before the first child is started.
	system  *actors.System
	sockets *netactor.Table
	names   []string // of the listeners in the tree

	mu       sync.Mutex
	closing  bool   // nothing is accepted any more
	last     int    // the newest ID
	links    uint64 // the newest number of one
	byID     map[int]*poolWorker
	listener *poolWorker // the listener process, from its first frame to its end
}

func newChildren(log *slog.Logger, shortages *shortages, stats *telemetry.Transport) *children {
	return &children{log: log, shortages: shortages, stats: stats, byID: map[int]*poolWorker{}}
}

// assignID gives a child its ID.
func (h *children) assignID(p *poolWorker) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	p.hello.ID = h.last
}

// add gives a child that has its backend and its channel its place in the registry.
func (h *children) add(p *poolWorker) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.byID[p.hello.ID] = p
}

// attach makes a child known to the actors, and to the sockets unless it is a spare.
// What it sent before would be refused, and what they send it must not come before
// its hello. remove undoes it, and add.
func (h *children) attach(p *poolWorker) error {
	h.stats.Add(p.conn)
	p.driver.kind.attach(h, p)
	return h.system.Attach(p.address(), 0, p.conn)
}

// child returns the child of an ID; nil if there is none.
func (h *children) child(id int) *poolWorker {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.byID[id]
}

// poolOf returns the path of the pool of the worker with an ID.
func (h *children) poolOf(id int) (path string, ok bool) {
	p := h.child(id)
	if p == nil || !p.driver.kind.ofConfig {
		return "", false
	}
	return p.hello.Path, true
}

// all returns the children that are in the registry.
func (h *children) all() []*poolWorker {
	h.mu.Lock()
	defer h.mu.Unlock()
	peers := make([]*poolWorker, 0, len(h.byID))
	for _, p := range h.byID {
		peers = append(peers, p)
	}
	return peers
}

// linkWorker gives a worker that has met its master and knows its place a link to the
// listener process. Each pair gets one link, and none before both can use it: who comes
// second makes it.
func (h *children) linkWorker(ctx context.Context, p *poolWorker) error {
	h.mu.Lock()
	p.placed = true
	listener := h.listener
	h.mu.Unlock()
	if listener == nil {
		return nil // it gets its link when there is one
	}
	return h.linkPair(ctx, listener, p)
}

// registerName gives a child that does its work its name, which leaves who had it.
func (h *children) registerName(p *poolWorker) error {
	pid := actors.ProcessPID(p.address())
	errs := []error{h.system.Reregister(context.Background(), p.name(), pid)}
	if p.hello.Role == childproto.RoleListener { // who looks for a listener finds who accepts for it
		for _, name := range h.names {
			errs = append(errs, h.system.Reregister(context.Background(), childproto.ListenerName+"/"+name, pid))
		}
	}
	return errors.Join(errs...)
}

// setListener makes p, which is ready, the one that accepts: it gets a link to every
// worker, and every socket. Who did so before goes on until it is told to be quiet.
func (h *children) setListener(ctx context.Context, p *poolWorker) {
	defer close(p.linkedToAll)
	h.mu.Lock()
	if h.byID[p.hello.ID] != p || h.closing {
		h.mu.Unlock()
		return // it has ended: nobody would take it out again; or nothing is accepted any more
	}
	h.listener = p
	var workers []*poolWorker
	for _, w := range h.byID {
		if w.placed && !w.askedStop.Load() { // who drains takes no more
			workers = append(workers, w)
		}
	}
	h.mu.Unlock()
	for _, w := range workers {
		if err := h.linkPair(ctx, p, w); err != nil {
			h.log.Error("a worker has no link to the listener process, which is replaced", "name", w.name(), "err", err)
			p.killFor(KilledNoLink) // it would pass that worker over, and nobody would know
			break
		}
	}
	h.sockets.Attach(p.conn)
	h.mu.Lock()
	gone := h.listener == nil
	h.mu.Unlock()
	if gone { // p is, and perhaps it was before the sockets were attached
		h.sockets.Detach()
	}
}

var errNoPair = errors.New("one of the two has ended")

// linkPair gives the listener process and a worker a channel of their own, over
// which connections go without passing the master. It waits for neither: who does not
// read what the master says is replaced, and the other gets its link to who comes next.
func (h *children) linkPair(ctx context.Context, listener, worker *poolWorker) error {
	l, lok := listener.backend.(*goroutineChild)
	w, wok := worker.backend.(*goroutineChild)
	to, from := worker.sibling(), listener.sibling()
	h.mu.Lock()
	h.links++
	to.Link, from.Link = h.links, h.links
	worker.link.made(h.links)
	h.mu.Unlock()
	if lok && wok {
		if !l.child.AwaitEquipped(ctx) || !w.child.AwaitEquipped(ctx) {
			return nil // one of them is ending
		}
		a, b := fdipc.Pipe(l.child.LinkConfig(to), w.child.LinkConfig(from))
		l.child.AddLink(to, a)
		w.child.AddLink(from, b)
		return nil
	}
	var a, b *os.File
	err := h.shortages.retry(ctx, listener.name(), func() (err error) {
		if listener.finished() || worker.finished() {
			return errNoPair
		}
		a, b, err = fdipc.Socketpair()
		return asShortage(err)
	})
	if errors.Is(err, errNoPair) {
		return nil // nobody is there to be linked
	}
	if err != nil {
		return fmt.Errorf("coppice: link %s to %s: %w", listener.name(), worker.name(), err)
	}
	if err := errors.Join(listener.sendLink(to, a), worker.sendLink(from, b)); err != nil {
		return fmt.Errorf("coppice: link %s to %s: %w", listener.name(), worker.name(), err)
	}
	return nil
}

// remove strikes out a child that has ended: its monitors fire, its asks fail,
// what it had not claimed goes to others.
func (h *children) remove(p *poolWorker) {
	h.mu.Lock()
	delete(h.byID, p.hello.ID)
	listener := h.listener
	if listener == p {
		h.listener = nil
	}
	h.mu.Unlock()

	h.system.Detach(p.address(), p.reason)
	p.driver.kind.detach(h, p, listener)
}

// stopAcceptingTimeout bounds how long a shutdown waits for workers to claim what was
// accepted for them.
const stopAcceptingTimeout = 2 * time.Second

// drainListener has a listener process accept what waits in the backlogs and then no more, and
// waits until all of it is claimed.
func (h *children) drainListener(ctx context.Context, l *poolWorker) {
	if l.conn.TrySend(childproto.NewFrame(childproto.FrameStopAccepting, struct{}{})) != nil {
		return
	}
	timer := time.NewTimer(stopAcceptingTimeout)
	defer timer.Stop()
	select {
	case <-l.drained:
	case <-l.done():
	case <-ctx.Done():
	case <-timer.C:
		h.log.Warn("the listener process ends with connections that no worker has claimed", "waited", stopAcceptingTimeout)
	}
}

// drainListeners is drainListener of every listener process that accepts: while one is replaced there
// are two. None begins to accept after that.
func (h *children) drainListeners(ctx context.Context) {
	h.mu.Lock()
	h.closing = true
	now := h.listener
	h.mu.Unlock()
	var all sync.WaitGroup
	for _, p := range h.all() {
		if p == now || p.hello.Role == childproto.RoleListener && p.retired.Load() {
			all.Go(func() { h.drainListener(ctx, p) })
		}
	}
	all.Wait()
}
