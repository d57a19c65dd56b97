package actors

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coppice-go/coppice/actors/internal/codec"
	"github.com/coppice-go/coppice/actors/internal/foreign"
)

// maxSettle bounds how long Suspend waits until no message waits in a mailbox.
var maxSettle = time.Second // shorter in tests

// Suspend stops the System of a master between two messages and returns its state, from which
// [Restore] makes the System of the program that replaces this one in the same process. The other
// processes of the tree keep their Conns and notice nothing but the pause:
//
//   - PIDs, names, lanes, and the exit reasons of processes that have ended go along.
//   - An actor goes along if it [HandsOver], with what monitors it, its MonitorFroms and
//     protoactor's watches, which need not be made again. Every other one has ended, with
//     [ErrReplaced]; the spec that starts it anew makes a new incarnation.
//   - Messages that wait for an actor with a name wait for the one of that name in the new image,
//     in order, once. A message without a codec, or with handles, is lost.
//   - An ask of another process that waits goes along. One that an actor has taken ends with
//     [ErrReplaced], unless the actor hands it over.
//   - What this image waits for ends with it: its asks, its channels of [System.Monitor], its
//     Stops.
//   - A change of a name that some process has not acknowledged ends.
//   - A lane between this process and another host ends, and one to another host that is being
//     made: what is on it gets [ErrLane]. Other processes of this host keep theirs.
//
// It waits for the messages in the mailboxes: under ctx, of whose time it takes half, and for a
// second at most. Then it waits, under ctx, until each actor has handed over. It fails if one that
// does so goes on with a message, or has an error; then the System goes on as if nothing had
// happened. In a process that has an uplink it fails. What is sent after its return leaves after
// [System.Resume], if that comes.
//
// The order of calls: suspend the attached Conns ([fdipc.Conn.Suspend]), so that no
// [System.HandleFrame] runs or comes; Suspend; the exec. If it does not take place:
// [System.Resume], then resume the Conns. In the new image: [Restore]; [System.Attach] of each
// restored Conn; spawn the actors, which do not wait for other processes now; when all is certain,
// [System.Resume], then resume the Conns. A process that was attached and is not by then has ended
// with ErrReplaced; of one that has died meanwhile [System.Detach] says why, after Resume and its
// last frames.
func (s *System) Suspend(ctx context.Context) (state []byte, err error) {
	if s.closed.Load() || s.peers.hasUplink() {
		return nil, fmt.Errorf("actors: suspend: %w, or no master", ErrClosed)
	}
	for _, p := range s.peers.all() {
		if p.lane { // to another host
			s.peers.dropLane(p, laneReasons.Suspended)
		} else {
			p.hold()
		}
	}
	if l := s.peers.foreign; l != nil {
		l.step(foreign.Event{Kind: foreign.Suspended})
	}
	s.local.settle(ctx)
	requests, err := s.local.hold(ctx)
	s.names.changes.finishAll()
	var st *systemState
	if err == nil {
		st, err = s.state(requests)
	}
	if err == nil {
		state, err = codec.EncodeState(st)
	}
	if err != nil {
		s.Resume()
		return nil, fmt.Errorf("actors: suspend: %w", err)
	}
	return state, nil
}

// settle waits until no actor has anything to do.
func (la *localActors) settle(ctx context.Context) {
	limit := maxSettle
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)/2)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	// Idle twice in a row, and none took a message in between: none had one for another then.
	for last, before := uint64(0), false; ; {
		sum, idle := uint64(0), true
		la.table.each(func(inc *incarnation) {
			taken, now := inc.box.idle()
			sum, idle = sum+taken, idle && now
		})
		if idle && before && sum == last {
			return
		}
		last, before = sum, idle
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// hold has all actors keep their messages, and those that hand over do so.
func (la *localActors) hold(ctx context.Context) (map[*incarnation]*handOverRequest, error) {
	requests := make(map[*incarnation]*handOverRequest)
	la.table.each(func(inc *incarnation) {
		req := &handOverRequest{done: make(chan struct{})}
		requests[inc] = req
		inc.box.hold(req)
	})
	var errs []error
	for inc, req := range requests {
		select {
		case <-req.done:
			if req.err != nil {
				errs = append(errs, fmt.Errorf("actor %s: %w", inc.id, req.err))
			}
			continue
		case <-inc.done:
		case <-ctx.Done():
			if inc.handsOver() {
				errs = append(errs, fmt.Errorf("actor %s: %w", inc.id, context.Cause(ctx)))
			}
		}
		requests[inc] = &handOverRequest{} // the other is the actor's
	}
	return requests, errors.Join(errs...)
}

// handsOver reports whether the actor has started and implements HandsOver.
func (inc *incarnation) handsOver() bool {
	select {
	case <-inc.startDone:
		_, ok := original(inc.wrapper.user).(HandsOver)
		return ok
	default:
		return false
	}
}
