package coppice

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// actorRow is one actor of a process, as /v1/actors has it.
type actorRow struct {
	actors.Summary
	Path        string  `json:"path"`
	State       State   `json:"state"`
	Incarnation int     `json:"incarnation,omitempty"`
	PID         string  `json:"actor_pid,omitempty"`
	Queue       int     `json:"queue"`
	Oldest      float64 `json:"oldest_seconds"`
	Processed   uint64  `json:"processed"`
	Failures    uint64  `json:"failures"`
}

func newActorRow(path string, state State, i actors.ActorInfo) actorRow {
	return actorRow{Summary: i.Summary, Path: path, State: state, PID: i.PID, Queue: i.Queue, Oldest: i.Oldest.Seconds(), Processed: i.Processed, Failures: i.Failures}
}

// actors lists the actors of the master's tree, and those of the quarantines of pools.
func (c *controlHandler) actors() []actorRow {
	rows := []actorRow{}
	c.Snapshot().walk("", func(path string, t Tree) {
		if t.Actor != nil {
			row := newActorRow(path, t.State, *t.Actor)
			row.Incarnation = t.Incarnation
			rows = append(rows, row)
		}
	})
	for _, i := range c.actorSystem().Actors() {
		if _, name, _ := strings.Cut(i.PID, "/"); i.Kind == guardKind { // after the address
			rows = append(rows, newActorRow(name, StateRunning, i))
		}
	}
	return rows
}

func (c *controlHandler) serveActors(r *http.Request) (any, error) {
	var infos []actors.ActorInfo
	asked, err := c.askActors(r, childproto.StacksFrame{Profile: childproto.ActorList}, &infos)
	if !asked {
		return c.actors(), nil
	}
	rows := []actorRow{}
	for _, i := range infos {
		_, name, _ := strings.Cut(i.PID, "/") // after the address
		rows = append(rows, newActorRow(name, StateRunning, i))
	}
	return rows, err
}

func (c *controlHandler) actorState(r *http.Request) (any, error) {
	const limit = stacksTimeout / 2 // the way there takes time
	var state actors.Inspection
	asked, err := c.askActors(r, childproto.StacksFrame{Profile: childproto.ActorState, Time: limit}, &state)
	if !asked {
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		state, err = c.actorSystem().Inspect(ctx, r.FormValue("actor"))
	}
	return state, err
}

// maxWatch is the longest time, in seconds, for which the messages of an actor are counted.
const maxWatch = 60

// messages counts the messages of an actor for some seconds.
func (c *controlHandler) messages(r *http.Request) (any, error) {
	seconds, err := numberParameter(r, "seconds", 5, 1)
	if err != nil {
		return nil, err
	}
	limit := time.Duration(min(seconds, maxWatch)) * time.Second
	counts := []actors.MessageCount{}
	asked, err := c.askActors(r, childproto.StacksFrame{Profile: childproto.ActorMessages, Time: limit}, &counts)
	if !asked {
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		counts, err = c.actorSystem().WatchMessages(ctx, r.FormValue("actor"))
	}
	return counts, err
}

// maxActorName bounds, in bytes, what an operator makes a frame carry.
const maxActorName = 4096

// decodeActors decodes the answer of a worker, which may lie: three bytes make an actor here.
func decodeActors(data []byte, v any) error {
	if n := bytes.Count(data, []byte("{")); n > maxListed {
		return fmt.Errorf("an answer with %d actors, at most %d", n, maxListed)
	}
	return json.Unmarshal(data, v)
}

// askActors asks the worker that the request names about its actors. asked is false if the master
// is meant.
func (c *controlHandler) askActors(r *http.Request, q childproto.StacksFrame, v any) (asked bool, err error) {
	process := r.FormValue("process")
	if isMaster(process) {
		return false, nil
	}
	p, err := c.children.named(process)
	if err != nil {
		return true, err
	}
	if q.Actor = r.FormValue("actor"); len(q.Actor) > maxActorName {
		return true, badParameter("actor", q.Actor[:32]+"…", "is too long")
	}
	ctx, cancel := context.WithTimeout(r.Context(), q.Time+stacksTimeout)
	defer cancel()
	data, err := p.askProfile(ctx, q)
	if err == nil {
		return true, decodeActors(data, v)
	}
	for _, known := range []error{actors.ErrNoActor, actors.ErrNotInspector, context.DeadlineExceeded} {
		if strings.HasSuffix(err.Error(), known.Error()) { // of another process it is text
			err = known
		}
	}
	return true, fmt.Errorf("coppice: actors of %s: %w", process, err)
}
