package coppice

import (
	"context"
	"log/slog"
	"sync"

	"github.com/coppice-go/coppice/netactor/registry"
	"github.com/coppice-go/coppice/supervisor"
)

// listenerStarter opens the socket of a ListenerSpec in the tree.
type listenerStarter struct {
	sockets *registry.Table
	log     *slog.Logger
	spec    ListenerSpec
	path    string
}

func (h listenerStarter) Start(ctx context.Context, _ supervisor.Incarnation) (supervisor.Instance, error) {
	former := h.spec.request()
	if h.spec.SystemdName != "" {
		former.FD = firstActivated // any: the image before has resolved it
	}
	if _, ok := h.sockets.Reclaim(h.path, former); ok {
		return &openListener{listenerStarter: h}, nil
	}
	spec, err := h.spec.resolveSystemd()
	if err != nil {
		return nil, err
	}
	r := spec.request()
	if spec.hasFunctions() {
		r.Functions = h.path
	}
	defer warnIfSlow(h.log, unlimited, "the start of "+h.path, "its socket is not open", "hint", "its address is looked up, or its Hooks.Control blocks")()
	if _, err := h.sockets.Open(ctx, h.path, r); err != nil {
		return nil, err
	}
	return &openListener{listenerStarter: h}, nil
}

// openListener is an open socket in the tree. It ends only when it is stopped.
type openListener struct {
	supervisor.Termination
	listenerStarter
	once sync.Once
}

func (h *openListener) Stop() {
	h.once.Do(func() {
		h.sockets.StopOwner(h.path)
		h.Terminate(supervisor.Reason{Kind: supervisor.Shutdown}, nil)
	})
}

func (h *openListener) Info() any {
	return info{role: "listener", Identity: Identity{Name: h.spec.Name}}
}

func (h *openListener) Kill() { h.Stop() }
