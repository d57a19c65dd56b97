package main

import (
	"context"
	"errors"
	"net/http"

	"github.com/quic-go/quic-go"

	"github.com/coppice-go/coppice/examples/internal/chaos"
	coppice "github.com/coppice-go/coppice/runtime"
)

const clients = 16

// harm has clients ask, each over a connection of its own, kills each worker, and reloads the tree.
// It ends the program with an error if a kill costs more requests than one of each client and the
// one that it had given up before, or a reload any. A client whose request was acknowledged, and
// not answered, hears nothing of the death: it gives up later, as clients with a deadline do.
func harm(rt *coppice.Runtime, url string) {
	crowd := chaos.NewCrowd("answered", "ended by a reset", "given up", "failed")
	for range clients {
		tr := newTransport()
		defer tr.Close()
		crowd.Add(func(ctx context.Context) (string, error) {
			_, err := chaos.Get(ctx, &http.Client{Transport: tr}, url)
			if _, reset := errors.AsType[*quic.StatelessResetError](err); reset {
				return "ended by a reset", nil
			}
			return "answered", err
		})
	}
	crowd.After("the start", map[string]int{"failed": 0, "ended by a reset": 0})
	for _, name := range chaos.Workers(rt, "web") {
		crowd.Kill(rt, name)
		crowd.After("kill -9 of "+name, map[string]int{"failed": 0, "ended by a reset": clients, "given up": clients})
	}
	chaos.Reload(rt)
	crowd.After("a reload", map[string]int{"failed": 0, "ended by a reset": 0, "given up": 0})
	crowd.Stop()
}
