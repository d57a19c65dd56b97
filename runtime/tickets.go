package coppice

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// ticketsTimeout bounds a renewal: the next one comes in time.
const ticketsTimeout = time.Minute

// ticketsName is the master's actor that answers a ticketsRequest with the session ticket
// keys of the asker's pool.
const ticketsName = "tickets"

// Rotation of the session ticket keys: that of crypto/tls, for which a ticket is
// good for 7 days.
const (
	ticketsRotate = 24 * time.Hour
	ticketsKept   = 7 // besides the one in use and the one after it
)

type (
	ticketsRequest struct{}
	tickets        struct{ Keys [][32]byte }
)

// Format keeps the keys out of whatever prints a message.
func (t tickets) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "%d session ticket keys", len(t.Keys)) }

// MarshalJSON keeps them out of logs in JSON.
func (t tickets) MarshalJSON() ([]byte, error) { return json.Marshal(fmt.Sprint(t)) }

func init() {
	actors.RegisterType[ticketsRequest]("coppice.tickets.request")
	actors.RegisterType[tickets]("coppice.tickets")
}

// ticketRing are the keys of a pool: the one in use, the one that is next, and
// those that were. Every worker knows the next one a day before another worker may
// use it, so that no ticket is met by a worker that cannot read it.
type ticketRing struct {
	keys  [][32]byte
	since time.Time // when the first came into use
}

// at returns the keys as they are at that time.
func (r *ticketRing) at(now time.Time) [][32]byte {
	if r.keys == nil {
		r.keys, r.since = [][32]byte{newTicketKey(), newTicketKey()}, now
	}
	for ; now.Sub(r.since) >= ticketsRotate; r.since = r.since.Add(ticketsRotate) {
		keys := append([][32]byte{r.keys[1], newTicketKey(), r.keys[0]}, r.keys[2:]...)
		r.keys = keys[:min(len(keys), ticketsKept+2)]
	}
	return r.keys
}

func newTicketKey() (key [32]byte) {
	_, _ = rand.Read(key[:]) // never fails (crypto/rand)
	return key
}

// ticketActor has the keys of each pool that has asked for them, by the pool's path.
type ticketActor struct {
	poolOf func(id int) (path string, ok bool) // of a worker
	rings  map[string]*ticketRing
}

// Receive answers a worker with the keys of its pool. Whose word the question is does not
// matter: the answer goes to the process that stands there as its sender.
func (a *ticketActor) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(ticketsRequest); !ok || ctx.Sender() == nil {
		return
	}
	id, err := strconv.Atoi(ctx.Sender().Address)
	if err != nil {
		return
	}
	path, ok := a.poolOf(id)
	if !ok {
		return
	}
	r := a.rings[path]
	if r == nil {
		r = new(ticketRing)
		a.rings[path] = r
	}
	ctx.Respond(tickets{r.at(time.Now())})
}

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
// cfg must be the configuration that serves: tls.NewListener(ln, cfg) takes it as
// it is, while http.Server.ServeTLS serves with a copy, and a copy has the keys of
// its moment. Without a master ShareTickets does nothing: a single process has keys
// of its own.
func (w *Worker) ShareTickets(ctx context.Context, cfg *tls.Config) error {
	if w.c == nil {
		return nil
	}
	if err := w.c.renewTickets(ctx, cfg); err != nil {
		return err
	}
	go w.c.keepTickets(cfg) // ends with the drain
	return nil
}

func (c *child) renewTickets(ctx context.Context, cfg *tls.Config) error {
	reply, err := c.system.Ask(ctx, c.system.Lookup(childproto.MasterName+"/"+ticketsName), ticketsRequest{})
	if err != nil {
		return fmt.Errorf("coppice: session ticket keys: %w", err)
	}
	t, ok := reply.(tickets)
	if !ok || len(t.Keys) == 0 {
		return fmt.Errorf("coppice: session ticket keys: the answer is a %T", reply)
	}
	cfg.SetSessionTicketKeys(t.Keys)
	return nil
}

// keepTickets renews cfg's keys twice in each rotation. A renewal that fails is
// made up for by the next: the key that comes into use meanwhile is known.
func (c *child) keepTickets(cfg *tls.Config) {
	ticker := time.NewTicker(ticketsRotate / 2)
	defer ticker.Stop()
	for {
		select {
		case <-c.drain.Done():
			return
		case <-ticker.C:
		}
		ctx, cancel := context.WithTimeout(c.drain, ticketsTimeout)
		if err := c.renewTickets(ctx, cfg); err != nil {
			c.log.Warn("tls", "err", err)
		}
		cancel()
	}
}
