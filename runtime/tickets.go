package coppice

import (
	"context"
	"crypto/tls"

	"github.com/coppice-go/coppice/runtime/internal/tickets"
)

// ShareTickets gives cfg the TLS session ticket keys of the worker's pool and keeps
// them up to date until the worker ends, so that a client may resume its session
// with any worker of it, of any generation (N105, P40), in TLS 1.2 and 1.3. ctx ends the
// wait for the first ones.
//
// The master makes the keys: a new one each day, which every worker knows a day
// before the first may use it, and accepts for 7 days after the last did; crypto/tls
// resumes no session that is older. The keys are in the memory of the master and of
// the workers that ask, and on the channel between them: in no file, argument,
// variable or log. After a restart of the master clients begin anew.
//
// Each pool has keys of its own, which no worker of another gets: it could read what is
// in the tickets, and resume their sessions. Pools that serve the same clients can share keys from
// Config.Load.
//
// [Worker.ServeTLS] does all of it for an http.Server. For other servers cfg must be the
// configuration that serves: tls.NewListener(ln, cfg) takes it as it is; a copy has the keys of
// its moment. Without a master ShareTickets does nothing: a single process has keys
// of its own.
func (w *Worker) ShareTickets(ctx context.Context, cfg *tls.Config) error {
	if w.c == nil {
		return nil
	}
	if err := tickets.Renew(ctx, w.c.System(), cfg); err != nil {
		return err
	}
	go tickets.Keep(w.c.DrainContext(), w.c.Log(), w.c.System(), cfg) // ends with the drain
	return nil
}
