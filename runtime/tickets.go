package coppice

import (
	"context"
	"crypto/tls"

	"github.com/coppice-go/coppice/runtime/internal/tickets"
)

// ShareTickets gives cfg the TLS session ticket keys of the worker's pool and keeps them up to date
// until the worker ends, so that a client can resume its session with any worker of the pool, of
// any generation (N105, P40), in TLS 1.2 and 1.3. ctx ends the wait for the first keys.
//
// The master makes a new key each day. Every worker knows a key a day before any worker may use it,
// and accepts it for 7 days after its last use; crypto/tls resumes no older session. The keys are
// in the memory of the master and of the workers that ask, and on the channel between them, but in
// no file, argument, variable or log. After a restart of the master clients begin new sessions.
//
// Each pool has its own keys. No worker of another pool gets them, because with them it could read
// the tickets and resume the sessions. Pools that serve the same clients can share keys from
// Config.Load.
//
// [Worker.ServeTLS] does all of this for an http.Server. For other servers cfg must be the
// configuration that serves: tls.NewListener(ln, cfg) uses cfg itself; a copy keeps the keys of the
// time when it was made. Without a master ShareTickets does nothing: a single process has its own
// keys.
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
