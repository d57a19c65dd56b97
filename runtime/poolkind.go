package coppice

import (
	"context"
	"strconv"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/pool"
)

// poolKind holds the differences between a pool of workers and the pool of the listener process,
// which is a pool of one. It has three values.
type poolKind struct {
	role childproto.Role

	// ofConfig is set for a pool of Config.Children. Such a pool can be scaled and is measured, and
	// its reload proves more than that the program starts.
	ofConfig bool

	names     func(path string, slot int) slotNames
	events    func(path string) string // the Pool field of its events
	heartbeat func(Pool) Liveness
	aliases   func(h *children) []string // further registered names of a worker that is ready

	// attach makes w known to the sockets, once it has its hello.
	attach func(h *children, w *poolWorker)
	// link gives w, which can receive descriptors now, what it needs to become ready.
	link func(ctx context.Context, h *children, w *poolWorker) error
	// takeOver puts w, which is ready, in charge of its slot's work. It may wait for other
	// processes. nil = nothing to do.
	takeOver func(ctx context.Context, h *children, w *poolWorker)
	// handOver lets w finish its work in hand when next has got its slot, before w is asked to end.
	// It may wait. nil = nothing to do.
	handOver func(ctx context.Context, h *children, w, next *poolWorker)
	// detach removes w, which has ended, from the sockets. listener is the listener process of
	// before.
	detach func(h *children, w, listener *poolWorker)
}

// slotNames are the names of a slot, or of a spare.
type slotNames struct {
	registered string // of its worker, among the actors
	id         string // of the slot, as a child of the pool's supervisor; "" for a spare
}

// workerPool is the kind of the pools of Config.Children.
var workerPool = &poolKind{
	role:     childproto.RoleWorker,
	ofConfig: true,
	names: func(path string, slot int) slotNames {
		if slot == pool.Spare {
			return slotNames{registered: path + "/spare"}
		}
		if slot == pool.Trial {
			return slotNames{registered: path + "/trial"}
		}
		n := strconv.Itoa(slot)
		return slotNames{path + "/" + n, n}
	},
	events:    func(path string) string { return path },
	heartbeat: func(p Pool) Liveness { return p.Liveness.defaults() },
	aliases:   func(*children) []string { return nil },
	attach: func(h *children, w *poolWorker) {
		if w.hello.Slot != pool.Spare {
			h.sockets.AddWorker(w.sibling().Worker, w.conn)
		}
	},
	link: func(ctx context.Context, h *children, w *poolWorker) error { return h.linkWorker(ctx, w) },
	detach: func(h *children, w, listener *poolWorker) {
		h.sockets.RemoveWorker(uint64(w.hello.ID), w.retired.Load())
		if listener != nil { // it learns from the master that the worker is reaped
			_ = listener.sendOrReplace(childproto.NewFrame(childproto.FrameWorkerGone, w.sibling())) // an error means that the listener process ends
		}
	},
}

// listenerPool is the kind of the pool of the listener process.
var listenerPool = &poolKind{
	role: childproto.RoleListener,
	names: func(string, int) slotNames {
		return slotNames{childproto.ListenerName, childproto.ListenerName}
	},
	events:    func(string) string { return childproto.ListenersName },
	heartbeat: func(Pool) Liveness { return listenerHeartbeat.defaults() },
	aliases: func(h *children) (names []string) { // a listener's name finds the process that accepts for it
		for _, name := range h.names() {
			names = append(names, childproto.ListenerName+"/"+name)
		}
		return names
	},
	attach:   func(*children, *poolWorker) {},
	link:     func(context.Context, *children, *poolWorker) error { return nil },
	takeOver: func(ctx context.Context, h *children, w *poolWorker) { h.setListener(ctx, w) },
	handOver: func(ctx context.Context, h *children, w, next *poolWorker) {
		<-next.linkedToAll // later connections are accepted by next
		h.drainListener(ctx, w, true)
	},
	detach: func(h *children, w, listener *poolWorker) {
		if w == listener {
			h.sockets.Detach()
		}
	},
}

// gatewayPool is the kind of the pool of the gateway.
var gatewayPool = func() *poolKind {
	k := *workerPool
	k.takeOver = func(_ context.Context, h *children, w *poolWorker) { h.system.SetGateway(w.address()) }
	return &k
}()

// programPool is the kind of the pools of other programs: they accept by themselves, so they need
// no link to the listener process.
var programPool = func() *poolKind {
	k := *workerPool
	k.link = func(context.Context, *children, *poolWorker) error { return nil }
	k.heartbeat = func(p Pool) Liveness {
		if p.Liveness.Timeout == 0 {
			p.Liveness.Every = None
		} else if p.Liveness.Every == 0 {
			p.Liveness.Every = min(defaultHeartbeatEvery, p.Liveness.Timeout/2)
		}
		return p.Liveness.defaults()
	}
	return &k
}()

// listenerHeartbeat is the Liveness of the listener process. While it is silent no connection is
// accepted, and only a Picker can hold it up.
var listenerHeartbeat = Liveness{Timeout: 3 * time.Second}
