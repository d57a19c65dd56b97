package jobs

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/coppice-go/coppice/actors"
)

// A Run is a call that a worker has.
type Run struct {
	Worker   string        `json:"worker"`
	Function string        `json:"function"`
	Key      string        `json:"key,omitempty"`
	Run      int           `json:"run"`                // of the call, from 1
	Progress string        `json:"progress,omitempty"` // its last report: a string, or CBOR as text, of at most 256 bytes
	For      time.Duration `cbor:"For" json:"-"`
}

// maxRuns is how many runs a Status has.
const maxRuns = 256

// maxSaid is how long a report may be, in bytes, to be kept for Run.Progress.
const maxSaid = 256

// text returns what stands in the message of a report, for people.
func (b *body) text() (s string) {
	switch {
	case b.Enc == encString:
		s = string(b.Bytes)
	case b.Enc == encCBOR && len(b.Bytes) > 0:
		s, _ = cbor.Diagnose(b.Bytes)
	}
	return s
}

// running returns the calls that workers have, the longest first.
func (q *queueActor) running() []Run {
	list := []Run{}
	for _, c := range q.calls {
		if !c.handed.IsZero() {
			list = append(list, Run{c.worker, c.submit.Func, c.submit.Options.Key, c.run, c.said.text(), time.Since(c.handed)})
		}
	}
	slices.SortFunc(list, func(a, b Run) int { return cmp.Compare(b.For, a.For) })
	return list[:min(len(list), maxRuns)]
}

// MarshalJSON encodes durations as seconds.
func (s Status) MarshalJSON() ([]byte, error) {
	type plain Status
	return json.Marshal(struct {
		plain
		Oldest float64 `json:"oldest_seconds"`
	}{plain(s), s.Oldest.Seconds()})
}

// MarshalJSON encodes durations as seconds.
func (r Run) MarshalJSON() ([]byte, error) {
	type plain Run
	return json.Marshal(struct {
		plain
		For float64 `json:"for_seconds"`
	}{plain(r), r.For.Seconds()})
}

// MarshalJSON encodes durations as seconds.
func (k QuarantinedKey) MarshalJSON() ([]byte, error) {
	type plain QuarantinedKey
	return json.Marshal(struct {
		plain
		Since  float64 `json:"since_seconds"`
		Probe  float64 `json:"probe_seconds"`
		Expiry float64 `json:"expiry_seconds"`
	}{plain(k), k.Since.Seconds(), k.Probe.Seconds(), k.Expiry.Seconds()})
}

// Inspect is for [actors.Inspector]: the control endpoint shows it of the actor.
func (q *queueActor) Inspect() any { return q.status() }

// Summary is for [actors.Summarizer].
func (q *queueActor) Summary() actors.Summary {
	waiting, running, rerun, _, quarantined := q.levels()
	text := fmt.Sprintf("%d waiting, %d running", waiting+rerun, running)
	if quarantined > 0 {
		text += fmt.Sprintf(", %d quarantined", quarantined)
	}
	return actors.Summary{Kind: "jobs", Text: text}
}

// Operate is for [actors.Operator]: "release" ends the quarantine of a key, "forget" removes its
// entry too.
func (q *queueActor) Operate(do, key string) error {
	found := false
	switch do {
	case "release":
		found = q.release(key)
	case "forget":
		found = q.forget(key)
	default:
		return fmt.Errorf("jobs: a queue does not %q: it can release or forget a key", do)
	}
	if !found {
		return fmt.Errorf("jobs: key %q is not quarantined", key)
	}
	return nil
}
