package jobs

import (
	"context"
	"fmt"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/runtime/internal/quarantine"
)

// A Status is a pool of jobs at one moment. Counts are since the queue began, which is when the
// pool was started, or the queue again.
type Status struct {
	Waiting int           `json:"waiting"`         // calls in the queue
	Running int           `json:"running"`         // calls that workers have
	Rerun   int           `json:"rerun"`           // calls whose worker died, and that wait to run again
	Oldest  time.Duration `cbor:"Oldest" json:"-"` // that a call has waited
	Workers int           `json:"workers"`         // that take calls or finish some

	Taken    uint64 `json:"taken"`    // calls that came into the queue
	Answered uint64 `json:"answered"` // calls that a worker ran to their end, with whatever came of it
	Expired  uint64 `json:"expired"`  // of those answered: with an error, after their time was over
	Killed   uint64 `json:"killed"`   // calls that ended with a kill, because they did not end in time
	Died     uint64 `json:"died"`     // calls that ended with the death of their worker
	Canceled uint64 `json:"canceled"` // calls whose caller no longer waits
	Full     uint64 `json:"full"`     // calls that found the queue full, and ended
	Blocked  uint64 `json:"blocked"`  // that waited for room
	Refused  uint64 `json:"refused"`  // calls that were not run, because of the quarantine
	Reruns   uint64 `json:"reruns"`   // runs after the first, of a call whose worker died

	// Ends has calls by how they ended: "answer", "error", "panic", "refused", "too large", "died",
	// "deadline", "cancelled", "quarantined", "full".
	Ends map[string]uint64 `json:"ends"`

	Runs       []Run            `json:"runs"` // the longest 256
	Quarantine []QuarantinedKey `json:"quarantine"`
}

// A QuarantinedKey is one that is quarantined, or was.
type QuarantinedKey struct {
	Key      string        `json:"key"`
	Released bool          `json:"released,omitempty"` // its calls are let through, because a probe was answered or by hand
	Deaths   int           `json:"deaths"`
	Refused  int           `json:"refused"`         // calls
	Since    time.Duration `cbor:"Since" json:"-"`  // how long ago it was quarantined
	Probe    time.Duration `cbor:"Probe" json:"-"`  // until a call is let through
	Expiry   time.Duration `cbor:"Expiry" json:"-"` // until it is forgotten, without another death
	Reason   string        `json:"reason"`          // of the last death
}

func (q *queueActor) status() Status {
	c, now := q.rules.Totals, time.Since(q.began)
	s := Status{
		Runs: q.running(), Quarantine: []QuarantinedKey{}, Workers: len(q.workers), Taken: c.Taken, Answered: c.Answered, Expired: c.Expired, Killed: c.Killed, Died: c.Died,
		Canceled: c.Canceled, Full: c.Full, Blocked: c.Blocked, Refused: c.Refused, Reruns: c.Reruns,
	}
	s.Waiting, s.Running, s.Rerun, s.Oldest = q.rules.Len(now)
	s.Ends = map[string]uint64{}
	for e, n := range q.ended {
		if n > 0 {
			s.Ends[end(e).String()] = n
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if table := q.rules.Quarantine(); table != nil {
		for _, e := range table.List(now) {
			s.Quarantine = append(s.Quarantine, QuarantinedKey{e.Key, e.Released, e.Deaths, e.Refused, now - e.Since, max(0, e.Next-now), e.Until - now, e.Reason})
		}
	}
	return s
}

// release ends the quarantine of a key.
func (q *queueActor) release(key string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.rules.Quarantine() != nil && q.rules.Quarantine().Release(time.Since(q.began), key)
}

// forget removes what is known of a key.
func (q *queueActor) forget(key string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.rules.Quarantine() != nil && q.rules.Quarantine().Forget(time.Since(q.began), key)
}

// entry returns what is known of a key that is quarantined.
func (q *queueActor) entry(key string) (quarantine.Entry, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.rules.Quarantine().Entry(time.Since(q.began), key)
}

// StatusOf returns the state of a pool of jobs. ctx bounds the wait. On an error it is a
// [GoneError].
func StatusOf(ctx context.Context, c Caller, pool string) (Status, error) {
	s, err := actors.Ask[Status](ctx, c.System(), c.Lookup(pool+"/"+queueName), statusRequest{})
	if err != nil {
		return Status{}, &GoneError{pool, err}
	}
	return s, nil
}

// Release ends the quarantine of a key. It reports whether the key was quarantined. On an error it
// is a [GoneError].
func Release(ctx context.Context, c Caller, pool, key string) (bool, error) {
	found, err := actors.Ask[bool](ctx, c.System(), c.Lookup(pool+"/"+queueName), release{key})
	if err != nil {
		return false, fmt.Errorf("jobs: release: %w", &GoneError{pool, err})
	}
	return found, nil
}
