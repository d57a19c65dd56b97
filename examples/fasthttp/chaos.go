package main

import (
	"context"
	"net/http"

	"github.com/coppice-go/coppice/examples/internal/chaos"
	coppice "github.com/coppice-go/coppice/runtime"
)

const clients = 8

// harm has clients ask, half of them over one connection each, kills each worker, and
// reloads the tree. It ends the program with an error if a kill fails more requests than one of
// each client, or a reload any.
func harm(rt *coppice.Runtime, url string) {
	crowd := chaos.NewCrowd("answered", "failed")
	for i := range clients {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}
		crowd.Add(func(ctx context.Context) (string, error) {
			_, err := chaos.Get(ctx, client, url)
			return "answered", err
		})
		defer client.CloseIdleConnections()
	}
	crowd.After("the start", map[string]int{"failed": 0})
	for _, name := range chaos.Workers(rt, "web") {
		chaos.Kill(rt, name)
		crowd.After("kill -9 of "+name, map[string]int{"failed": clients})
	}
	chaos.Reload(rt)
	crowd.After("a reload", map[string]int{"failed": 0})
	crowd.Stop()
}
