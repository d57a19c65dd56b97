package coppice

import (
	"context"
	"strconv"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/pool"
)

// poolKind is the difference between a pool of workers and that of the listener process, which is
// a pool of one. There are two values.
type poolKind struct {
	role childproto.Role

	// ofConfig is set for a pool of Config.Children. It can be scaled and is measured, and a reload
	// of it proves more than that the program starts.
	ofConfig bool

	names     func(path string, slot int) slotNames
	events    func(path string) string // the Pool of its events
	heartbeat func(Pool) Liveness
	aliases   func(h *children) []string // more registered names of a worker that is ready

	// attach makes w known to the sockets, once it has its hello.
	attach func(h *children, w *poolWorker)
	// link gives w, which can be offered descriptors, what it needs to become ready.
	link func(ctx context.Context, h *children, w *poolWorker) error
	// takeOver puts w, which is ready, in charge of what its slot is for. It may wait for other
	// processes. Nil: there is nothing to do.
	takeOver func(ctx context.Context, h *children, w *poolWorker)
	// handOver lets w finish, before it is asked to end, what it has in hand when next gets its slot.
	// It may wait. Nil: there is nothing to do.
	handOver func(ctx context.Context, h *children, w, next *poolWorker)
	// detach takes w, which has ended, out of the sockets. listener is the listener process of before.
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
		if listener != nil { // it is the master's word that the worker is reaped
			_ = listener.sendOrReplace(childproto.NewFrame(childproto.FrameWorkerGone, w.sibling())) // an error is its own end
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
		for _, name := range h.names {
			names = append(names, childproto.ListenerName+"/"+name)
		}
		return names
	},
	attach:   func(*children, *poolWorker) {},
	link:     func(context.Context, *children, *poolWorker) error { return nil },
	takeOver: func(ctx context.Context, h *children, w *poolWorker) { h.setListener(ctx, w) },
	handOver: func(ctx context.Context, h *children, w, next *poolWorker) {
		<-next.linkedToAll // what comes from now on is accepted there
		h.drainListener(ctx, w)
	},
	detach: func(h *children, w, listener *poolWorker) {
		if w == listener {
			h.sockets.Detach()
		}
	},
}

// listenerHeartbeat is the listener process's. While it is silent nothing is accepted, and nothing
// but a Picker can hold it up.
var listenerHeartbeat = Liveness{Timeout: 3 * time.Second}
