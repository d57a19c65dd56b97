package coppice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor/registry"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/telemetry"
)

// children is the registry of the running workers of all pools, and of the listener process. It
// numbers them, gives them their names, and links the workers to the listener process.
type children struct {
	log       *slog.Logger
	shortages *retries
	stats     *telemetry.Transport

	// Set before the first child is started.
	system  *actors.System
	sockets *registry.Table
	names   func() []string // of the listeners in the tree

	host, boot string // in a cluster

	inherited *inheritance // of the image of the master before this one

	mu       sync.Mutex
	closing  bool   // no more connections are accepted
	last     int    // the newest ID
	links    uint64 // the number of the newest link
	byID     map[int]*poolWorker
	listener *poolWorker // the listener process that accepts, until its end
	newest   int         // the ID of the newest one that has accepted

	guards map[string]*requestGuard // of the pools that have one, by path

	attaching sync.Mutex // held while the sockets are attached; mu may be taken under it
}

func newChildren(log *slog.Logger, shortages *retries, stats *telemetry.Transport) *children {
	return &children{log: log, shortages: shortages, stats: stats, byID: map[int]*poolWorker{}, guards: map[string]*requestGuard{}}
}

// guard returns the guard of the pool at a path; nil if it has none.
func (h *children) guard(path string) *requestGuard {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.guards[path]
}

// setGuard makes g, or nil, the guard of the pool at a path.
func (h *children) setGuard(path string, g *requestGuard) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.guards[path] = g; g == nil {
		delete(h.guards, path)
	}
}

// assignID gives a child its ID.
func (h *children) assignID(w *poolWorker) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	w.hello.ID = h.last
}

// add registers a child that has its backend and its channel.
func (h *children) add(w *poolWorker) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.byID[w.hello.ID] = w
}

// attach makes a child known to the actors, and to the sockets unless it is a spare. It is called
// after the child's hello, which is the first frame. remove undoes attach and add.
func (h *children) attach(w *poolWorker) error {
	h.stats.Add(w.conn)
	w.driver.kind.attach(h, w)
	return h.system.Attach(w.address(), 0, w.conn)
}

// child returns the child with an ID; nil if there is none.
func (h *children) child(id int) *poolWorker {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.byID[id]
}

// address returns the actor address of the child with an ID.
func (h *children) address(id int) string { return childproto.Address(h.boot, id) }

// poolOf returns the path of the pool of the worker with an ID.
func (h *children) poolOf(id int) (path string, ok bool) {
	w := h.child(id)
	if w == nil || !w.driver.kind.ofConfig {
		return "", false
	}
	return w.hello.Path, true
}

// all returns the children that are in the registry.
func (h *children) all() []*poolWorker {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Values(h.byID))
}

// named returns the child with a registered name, or with an ID as a number. Of several with a name
// it is one that was not asked to end, and of those the oldest: the one that has the slot.
func (h *children) named(name string) (*poolWorker, error) {
	var found *poolWorker
	for _, w := range h.all() {
		switch {
		case strconv.Itoa(w.hello.ID) == name, w.address() == name:
			return w, nil
		case w.name() != name:
		case found == nil || found.askedStop.Load() && !w.askedStop.Load(),
			found.askedStop.Load() == w.askedStop.Load() && w.hello.ID < found.hello.ID:
			found = w
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w: %q", ErrNoChild, name)
	}
	return found, nil
}

// linkWorker gives a worker that has its slot a link to the listener process. Each worker gets one
// link to each listener process, when both can use it: linkWorker makes it, or setListener if the
// listener process comes later. One that retires may have a connection left for a pool whose only
// worker has died: it is linked too, before its successor.
func (h *children) linkWorker(ctx context.Context, w *poolWorker) error {
	h.mu.Lock()
	w.placed = true
	listener := h.listener
	var retiring []*poolWorker
	for _, p := range h.byID {
		if p != listener && childproto.IsClosed(p.linkedToAll) && !childproto.IsClosed(p.drained) {
			retiring = append(retiring, p)
		}
	}
	h.mu.Unlock()
	slices.SortFunc(retiring, func(a, b *poolWorker) int { return cmp.Compare(a.hello.ID, b.hello.ID) })
	for _, p := range retiring {
		if err := h.linkPair(ctx, p, w); err != nil {
			h.log.Warn("a worker has no link to the listener process that retires", "name", w.name(), "err", err)
		}
	}
	if listener == nil || linkedBefore(listener, w) {
		return nil // setListener makes the link
	}
	return h.linkPair(ctx, listener, w)
}

// linkedBefore reports whether a listener process and a worker were taken over with their link: a
// spare had none.
func linkedBefore(listener, w *poolWorker) bool {
	return listener.takenOver && w.takenOver && w.hello.Slot != None
}

// registerName registers the names of a child that is ready, which another child may have had.
func (h *children) registerName(w *poolWorker) error {
	pid := actors.ProcessPID(w.address())
	errs := []error{h.system.Reregister(context.Background(), w.name(), pid)}
	for _, name := range w.driver.kind.aliases(h) {
		errs = append(errs, h.system.Reregister(context.Background(), name, pid))
	}
	return errors.Join(errs...)
}

// setListener makes l, which is ready, the listener process that accepts: it gets a link to every
// worker, and every socket. Its predecessor accepts too until drainListener. Each call runs on a
// separate goroutine and may come after the call for the successor of l; then it does nothing.
func (h *children) setListener(ctx context.Context, l *poolWorker) {
	defer close(l.linkedToAll)
	h.mu.Lock()
	if h.byID[l.hello.ID] != l || h.closing || l.hello.ID < h.newest {
		h.mu.Unlock()
		return // it has ended, and remove would not be called again; or no more connections are accepted
	}
	h.listener, h.newest = l, l.hello.ID
	var workers []*poolWorker
	for _, w := range h.byID {
		if w.placed && !linkedBefore(l, w) { // one that drains gives connections back
			workers = append(workers, w)
		}
	}
	guards := slices.Collect(maps.Values(h.guards))
	h.mu.Unlock()
	for _, g := range guards {
		g.tellListener()
	}
	for _, w := range workers {
		if err := h.linkPair(ctx, l, w); err != nil && !w.askedStop.Load() {
			h.log.Error("a worker has no link to the listener process, which is replaced", "name", w.name(), "err", err)
			l.killFor(KilledNoLink) // it would never choose this worker
			break
		}
	}
	h.attaching.Lock()
	defer h.attaching.Unlock()
	if h.listenerProcess() == l { // not if its successor is attached, or will be
		h.sockets.Attach(l.conn)
	}
	if h.listenerProcess() == nil { // l has ended, and perhaps before the sockets were attached
		h.sockets.Detach()
	}
}

// listenerProcess returns the listener process that accepts, or nil.
func (h *children) listenerProcess() *poolWorker {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.listener
}

var errNoPair = errors.New("one of the two has ended")

// linkPair makes a channel between the listener process and a worker, over which connections go
// without passing the master. It waits for neither. If one of the two does not read, it is
// replaced, and the other is linked to the replacement.
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
		return nil // there is nothing to link
	}
	if err != nil {
		return fmt.Errorf("coppice: link %s to %s: %w", listener.name(), worker.name(), err)
	}
	if err := errors.Join(listener.sendLink(to, a), worker.sendLink(from, b)); err != nil {
		return fmt.Errorf("coppice: link %s to %s: %w", listener.name(), worker.name(), err)
	}
	return nil
}

// remove takes out a child that has ended: its monitors fire, requests to it fail, and the
// connections that it has not claimed go to other workers.
func (h *children) remove(w *poolWorker) {
	h.mu.Lock()
	delete(h.byID, w.hello.ID)
	listener := h.listener
	if listener == w {
		h.listener = nil
	}
	h.mu.Unlock()

	h.system.Detach(w.address(), w.reason)
	w.driver.kind.detach(h, w, listener)
}

// stopAcceptingTimeout bounds how long a shutdown waits for workers to claim the connections that
// were accepted for them.
const stopAcceptingTimeout = 2 * time.Second

// drainListener makes a listener process stop accepting, after the connections in the backlogs if
// it has no successor that accepts them. It waits until all that it has accepted are claimed.
func (h *children) drainListener(ctx context.Context, l *poolWorker, succeeded bool) {
	if l.conn.TrySend(childproto.NewFrame(childproto.FrameStopAccepting, childproto.StopAccepting{Succeeded: succeeded})) != nil {
		return
	}
	wait := stopAcceptingTimeout
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)/4) // the rest is for the work that is claimed
	}
	select {
	case <-l.drained:
	case <-l.done():
	case <-ctx.Done():
	case <-time.After(wait):
		h.log.Warn("the listener process ends with connections that no worker has claimed", "waited", wait.String())
	}
}

// drainListeners calls drainListener for every listener process that accepts: during a replacement
// there are two. After it no listener process begins to accept.
func (h *children) drainListeners(ctx context.Context) {
	h.mu.Lock()
	h.closing = true
	now := h.listener
	h.mu.Unlock()
	var all sync.WaitGroup
	for _, p := range h.all() {
		if p == now || !p.driver.kind.ofConfig && p.retired.Load() {
			all.Go(func() { h.drainListener(ctx, p, false) })
		}
	}
	all.Wait()
}
