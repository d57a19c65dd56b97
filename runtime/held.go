package coppice

import (
	"context"
	"sync"

	"github.com/coppice-go/coppice/supervisor"
)

// held opens the socket of a Listener in the tree.
type held struct {
	rt   *Runtime
	spec Listener
	path string
}

func (h held) Start(ctx context.Context, _ supervisor.Incarnation) (supervisor.Instance, error) {
	spec, err := h.spec.resolveSystemd()
	if err != nil {
		return nil, err
	}
	r := spec.request()
	if spec.hasFunctions() {
		r.Functions = h.path
	}
	addr, err := h.rt.sockets.Open(ctx, h.path, r)
	if err != nil {
		return nil, err
	}
	h.rt.log.Info("listening", "listener", h.spec.Name, "addr", addr.String())
	return &holding{held: h, done: make(chan struct{})}, nil
}

// holding is an open socket in the tree. It ends only when it is stopped.
type holding struct {
	held
	once sync.Once
	done chan struct{}
}

func (h *holding) Stop() {
	h.once.Do(func() {
		h.rt.sockets.StopOwner(h.path)
		close(h.done)
	})
}

// Info is looked for by package supervisor.
func (h *holding) Info() any { return info{role: "listener", name: h.spec.Name} }

func (h *holding) Kill()                     { h.Stop() }
func (h *holding) Done() <-chan struct{}     { return h.done }
func (h *holding) Reason() supervisor.Reason { return supervisor.Reason{Kind: supervisor.Shutdown} }
