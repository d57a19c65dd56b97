package main

import (
	"context"
	"crypto/tls"
	"log"
	"net/http"
	"strings"

	"github.com/coppice-go/coppice/examples/internal/chaos"
	coppice "github.com/coppice-go/coppice/runtime"
)

const clients = 8 // half of TLS 1.2, half of 1.3

// harm has clients that connect for each request and remember their session, kills each worker, and
// reloads the tree. It ends the program with an error if a kill fails more requests than one of
// each client, a reload any, or a session is new for another reason than that the client had none:
// at the start, and after a failure, for which it throws its session away (RFC 5077, 3.2).
func harm(rt *coppice.Runtime, url string) {
	crowd := chaos.NewCrowd("sessions resumed", "new", "failed")
	for i := range clients {
		version := uint16(tls.VersionTLS12 + i%2)
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
			InsecureSkipVerify: true, MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(1), //nolint:gosec // a certificate of the example's own
		}}}
		crowd.Add(func(ctx context.Context) (string, error) {
			page, err := chaos.Get(ctx, client, url)
			if strings.Contains(page, ": resumed") {
				return "sessions resumed", err
			}
			return "new", err
		})
	}
	crowd.After("the start", map[string]int{"new": clients, "failed": 0})
	workers := chaos.Workers(rt, "web")
	chaos.Kill(rt, workers...)
	if n := crowd.After("kill -9 of each worker", map[string]int{"failed": len(workers) * clients}); n["new"] > n["failed"] {
		log.Fatal("sessions are lost")
	}
	chaos.Reload(rt)
	crowd.After("a reload", map[string]int{"new": 0, "failed": 0})
	crowd.Stop()
}
