// Package tickets shares the keys of TLS session tickets among the workers of a pool: the master's
// actor makes them, and workers ask it.
package tickets

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// renewTimeout bounds a renewal. If it fails, the next renewal still comes in time.
const renewTimeout = time.Minute

// Name is the name of the actor in the master that answers a worker with the keys of its pool.
const Name = "tickets"

// Session ticket keys rotate as in crypto/tls, where a ticket is valid for 7 days.
const (
	rotation = 24 * time.Hour
	kept     = 7 // old keys, besides the key in use and the next one
)

type (
	request struct{}
	keys    struct{ Keys [][32]byte }
)

// Format keeps the keys out of printed messages.
func (t keys) Format(s fmt.State, _ rune) { fmt.Fprintf(s, "%d session ticket keys", len(t.Keys)) }

// MarshalJSON keeps the keys out of logs in JSON.
func (t keys) MarshalJSON() ([]byte, error) { return json.Marshal(fmt.Sprint(t)) }

func init() {
	actors.RegisterType[request]("coppice.tickets.request")
	actors.RegisterType[keys]("coppice.tickets")
}

// ring holds the keys of a pool: the key in use, the next key, and the old keys. Every worker knows
// the next key a day before another worker may use it, so that every worker can read every ticket.
type ring struct {
	keys  [][32]byte
	since time.Time // when the first key came into use
}

// at returns the keys as of now.
func (r *ring) at(now time.Time) [][32]byte {
	if r.keys == nil {
		r.keys, r.since = [][32]byte{newKey(), newKey()}, now
	}
	for ; now.Sub(r.since) >= rotation; r.since = r.since.Add(rotation) {
		keys := append([][32]byte{r.keys[1], newKey(), r.keys[0]}, r.keys[2:]...)
		r.keys = keys[:min(len(keys), kept+2)]
	}
	return r.keys
}

func newKey() (key [32]byte) {
	_, _ = rand.Read(key[:]) // never fails (crypto/rand)
	return key
}

// NewActor returns the master's actor. poolOf returns the path of the pool of the worker whose ID
// is id; ok is false if there is no such worker.
func NewActor(poolOf func(id int) (path string, ok bool)) actor.Actor {
	return &keeper{poolOf, map[string]*ring{}}
}

// keeper holds the keys of each pool whose workers have asked for them.
type keeper struct {
	poolOf func(id int) (path string, ok bool) // returns the path of a worker's pool
	rings  map[string]*ring                    // by the pool's path
}

// Receive answers a worker with the keys of its pool. It need not know the true sender of the
// question: the answer goes to the process that the question names as its sender.
func (a *keeper) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(request); !ok || ctx.Sender() == nil {
		return
	}
	text, local := actors.LocalID(ctx.Self().Address, ctx.Sender().Address)
	id, err := strconv.Atoi(text)
	if err != nil || !local {
		return
	}
	path, ok := a.poolOf(id)
	if !ok {
		return
	}
	r := a.rings[path]
	if r == nil {
		r = new(ring)
		a.rings[path] = r
	}
	ctx.Respond(keys{r.at(time.Now())})
}

// stateVersion is that of the state that the keeper hands over: JSON of ringState by the pool's
// path.
const stateVersion = 1

type ringState struct {
	Keys  [][]byte
	Since time.Time // when the first key came into use
}

var _ actors.HandsOver = (*keeper)(nil)

// HandOver gives the keys to the next image of the process, so that sessions go on.
func (a *keeper) HandOver(actor.Context) (actors.Handover, error) {
	all := make(map[string]ringState, len(a.rings))
	for path, r := range a.rings {
		rs := ringState{Since: r.since}
		for _, key := range r.keys {
			rs.Keys = append(rs.Keys, key[:])
		}
		all[path] = rs
	}
	state, err := json.Marshal(all)
	return actors.Handover{Version: stateVersion, State: state}, err
}

// TakeOver takes them. With those of a later version, or none that are usable, clients begin new
// sessions: that is no reason to refuse the new image.
func (a *keeper) TakeOver(_ actor.Context, h actors.Handover) error {
	var all map[string]ringState
	if h.Version != stateVersion || json.Unmarshal(h.State, &all) != nil {
		return nil
	}
	for path, rs := range all {
		r := &ring{since: rs.Since}
		for _, key := range rs.Keys {
			if len(key) == 32 {
				r.keys = append(r.keys, [32]byte(key))
			}
		}
		if len(r.keys) >= 2 { // that in use, and the next one
			a.rings[path] = r
		}
	}
	return nil
}

// Renew asks the master for the session ticket keys of this worker's pool and sets them in cfg.
// system is the worker's actor system.
func Renew(ctx context.Context, system *actors.System, cfg *tls.Config) error {
	t, err := actors.Ask[keys](ctx, system, system.Lookup(childproto.MasterName+"/"+Name), request{})
	if err != nil {
		return fmt.Errorf("coppice: session ticket keys: %w", err)
	}
	if len(t.Keys) == 0 {
		return errors.New("coppice: session ticket keys: the answer has none")
	}
	cfg.SetSessionTicketKeys(t.Keys)
	return nil
}

// Keep renews cfg's keys twice in each rotation, until ctx ends. If a renewal fails, the next one
// still comes in time: the worker already knows the key that comes into use before it.
func Keep(ctx context.Context, log *slog.Logger, system *actors.System, cfg *tls.Config) {
	ticker := time.NewTicker(rotation / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		bounded, cancel := context.WithTimeout(ctx, renewTimeout)
		if err := Renew(bounded, system, cfg); err != nil {
			log.Warn("tls", "err", err)
		}
		cancel()
	}
}
