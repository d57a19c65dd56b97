package lease

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// sessionPhase is where the session is.
type sessionPhase uint8

const (
	out      sessionPhase = iota // no lease; one is asked for at retryAt
	granting                     // a lease is asked for
	entering                     // under a lease; the host's entry is to be made
	live                         // names can be claimed
	ending                       // lost; what was owned stops, until the lease can end
	revoking                     // the last call of a close
	ended
)

// namePlace is where a name is.
type namePlace uint8

const (
	waiting  namePlace = iota // for a session, or for a delete of the same name
	claiming                  // the claim is on its way, or is made again at retryAt
	held
	stopping // lost; what it was for has not stopped yet
)

// A State is that of one host. Its zero value is not usable.
type State struct {
	cfg      Config
	phase    sessionPhase
	closing  bool
	lease    int64
	entered  uint64 // what made the host's entry
	sent     Time   // when the last renewal that succeeded, or the grant, left
	renewing bool
	calling  bool // Enter is on its way
	renewAt  Time
	retryAt  Time
	token    uint64 // the last one
	names    map[string]*nameRecord
	deletes  map[uint64]*deleteRecord // by what made the entry
	do       []Effect
}

// A nameRecord is a name that is wanted.
type nameRecord struct {
	name     string
	place    namePlace
	token    uint64
	revision uint64 // held: what made the entry; claiming: what the watch has shown
	calling  bool   // the claim is on its way
	dropped  bool   // no longer wanted, but the claim is on its way
	again    bool   // dropped, and wanted anew since: by another claim
	doubtful bool   // a claim of before may have made an entry, or may yet
	vanished uint64 // claiming: the last entry of the name that the watch has shown to be deleted
	retryAt  Time
}

// A deleteRecord is an entry to be deleted.
type deleteRecord struct {
	name     string
	revision uint64
	calling  bool
	answer   bool // somebody waits for it
	retryAt  Time
}

// New returns the state before the first event, which is Wake.
func New(cfg Config) *State {
	return &State{cfg: cfg, names: make(map[string]*nameRecord), deletes: make(map[uint64]*deleteRecord)}
}

// Until returns the time by which what is owned is told to stop unless a renewal moves it; zero
// when there is no session.
func (s *State) Until() Time {
	if s.phase != live && s.phase != entering {
		return 0
	}
	return s.sent + Time(s.cfg.TTL-s.cfg.Margin)
}

// Next returns when Wake is due if nothing else comes, and whether it ever is.
func (s *State) Next() (Time, bool) {
	var times []Time
	switch s.phase {
	case out:
		if !s.closing {
			times = append(times, s.retryAt)
		}
	case entering:
		times = append(times, s.Until())
		if !s.calling {
			times = append(times, s.retryAt)
		}
	case live:
		times = append(times, s.Until())
		if !s.renewing {
			times = append(times, s.renewAt)
		}
		for _, n := range s.names {
			if n.place == claiming && !n.calling {
				times = append(times, n.retryAt)
			}
		}
		for _, d := range s.deletes {
			if !d.calling {
				times = append(times, d.retryAt)
			}
		}
	case ending:
		times = append(times, s.sent+Time(s.cfg.TTL))
	case granting, revoking, ended:
	}
	if len(times) == 0 {
		return 0, false
	}
	return slices.Min(times), true
}

// pause is how long a call that failed is not made again.
func (s *State) pause() Time { return Time(s.cfg.TTL / 20) }

// Step applies an event and returns what is to be done. What does not fit, as an answer of a
// session that is over, changes nothing.
func (s *State) Step(now Time, ev Event) []Effect {
	s.do = nil
	if s.phase == ended {
		return nil
	}
	s.deadline(now) // before the event, whatever it is
	switch ev.Kind {
	case Wake:
	case Want:
		s.want(ev.Name)
	case Drop:
		s.drop(ev.Name)
	case Close, Abort:
		s.close(now, ev.Kind == Abort)
	case Granted, Entered, Barred, Renewed, Gone, Revoked:
		s.session(now, ev)
	case Claimed, Refused:
		s.claimed(ev)
	case Deleted:
		s.deleted(ev.Revision, Freed)
	case Failed:
		s.failed(now, ev)
	case Seen:
		s.seen(ev)
	case Vanished:
		s.vanished(now, ev)
	case Listed:
		s.listed(now, ev)
	}
	s.proceed(now)
	return s.do
}

func (s *State) emit(e Effect) { s.do = append(s.do, e) }

func (s *State) sorted() []*nameRecord {
	return slices.SortedFunc(maps.Values(s.names), func(a, b *nameRecord) int {
		return strings.Compare(a.name, b.name)
	})
}

// deadline ends a session whose lease may end within the margin, and stops waiting for what was
// owned when the lease may have ended: it is given away whatever still runs here.
func (s *State) deadline(now Time) {
	switch until := s.Until(); {
	case until != 0 && now >= until:
		s.lose(now)
	case s.phase == ending && now >= s.sent+Time(s.cfg.TTL):
		s.leave(now)
	}
}

// lose ends the session on this side: everything held is told to stop. Its lease is kept from being
// given back until that is done, and is renewed no more.
func (s *State) lose(now Time) {
	was, at := s.phase, min(now, s.Until()) // when it was to be told, if this is late
	s.phase, s.renewing, s.calling = ending, false, false
	s.emit(Effect{Kind: Disarm})
	s.forgetDeletes()
	if was == live {
		s.emit(Effect{Kind: Report, Outcome: Lost})
	}
	for _, n := range s.sorted() {
		switch n.place {
		case claiming:
			n.place, n.token, n.revision, n.calling, n.doubtful = waiting, 0, 0, false, true
			if n.dropped {
				s.forget(n)
			}
		case held:
			s.stop(n, at)
		case waiting, stopping:
		}
	}
	s.leaveIfStopped(now)
}

// forgetDeletes: what they would delete goes with the lease, later.
func (s *State) forgetDeletes() {
	for _, revision := range slices.Sorted(maps.Keys(s.deletes)) {
		s.deleted(revision, Lost)
	}
}

func (s *State) stop(n *nameRecord, at Time) {
	n.place = stopping
	s.emit(Effect{Kind: Stop, Name: n.name, Revision: n.revision, At: at})
}

func (s *State) leaveIfStopped(now Time) {
	for _, n := range s.names {
		if n.place == stopping {
			return
		}
	}
	s.leave(now)
}

// leave gives the lease of a lost session back, if the engine can hear it, and asks for another.
func (s *State) leave(now Time) {
	s.emit(Effect{Kind: Revoke, Lease: s.lease})
	s.phase, s.lease, s.entered, s.retryAt = out, 0, 0, now
}

func (s *State) want(name string) {
	switch n := s.names[name]; {
	case s.closing:
		s.emit(Effect{Kind: Answer, Name: name, Outcome: Closing})
	case n == nil:
		s.names[name] = &nameRecord{name: name}
	default:
		n.again = n.dropped
	}
}

// forget ends a wish; the next one for the name begins, if there is one.
func (s *State) forget(n *nameRecord) {
	delete(s.names, n.name)
	if n.again {
		s.names[n.name] = &nameRecord{name: n.name}
	}
}

// drop forgets a name, and has its entry deleted if there is one, or may be.
func (s *State) drop(name string) {
	n := s.names[name]
	if n == nil {
		return
	}
	switch n.place {
	case claiming:
		if n.calling {
			n.dropped, n.again = true, false
			return
		}
		s.remove(n.name, n.revision, false)
	case held:
		s.remove(n.name, n.revision, true)
	case stopping:
		if s.phase == live { // the name was taken away from a session that goes on
			s.remove(n.name, n.revision, true)
		} else {
			s.emit(Effect{Kind: Answer, Name: name, Outcome: Lost})
		}
	case waiting:
	}
	delete(s.names, name)
}

// remove has the entry of name that revision made deleted; revision 0: there is none.
func (s *State) remove(name string, revision uint64, answer bool) {
	if d := s.deletes[revision]; revision != 0 && d == nil {
		s.deletes[revision] = &deleteRecord{name: name, revision: revision, answer: answer}
	} else if d != nil {
		d.answer = d.answer || answer
	}
}

// close refuses wishes and has everything held stop. The lease goes on until that is done.
func (s *State) close(now Time, abort bool) {
	s.closing = true
	for _, n := range s.sorted() {
		switch {
		case n.place == waiting, n.place == claiming && (!n.dropped || n.again):
			s.emit(Effect{Kind: Answer, Name: n.name, Outcome: Closing})
			s.drop(n.name)
		case n.place == held:
			s.stop(n, now)
		}
	}
	if abort {
		s.phase = ended
		s.emit(Effect{Kind: Disarm})
		s.emit(Effect{Kind: End})
	}
}

// session handles the answers to the calls about the session.
func (s *State) session(now Time, ev Event) {
	switch {
	case ev.Kind == Granted && s.phase == granting:
		s.phase, s.lease, s.sent, s.retryAt, s.calling = entering, ev.Lease, ev.Sent, now, false
		s.deadline(now)
	case ev.Kind == Granted:
		s.emit(Effect{Kind: Revoke, Lease: ev.Lease})
	case ev.Kind == Revoked && s.phase == revoking && ev.Lease == s.lease:
		s.phase = ended
		s.emit(Effect{Kind: End})
	case ev.Lease != s.lease || s.lease == 0:
	case ev.Kind == Entered && s.phase == entering:
		s.begin(ev.Revision)
	case ev.Kind == Barred && s.phase == entering:
		s.barred(now, ev)
	case ev.Kind == Renewed && s.phase == live:
		s.renewing = false
		if ev.Sent > s.sent {
			s.sent = ev.Sent
			s.emit(Effect{Kind: Arm, At: s.Until()})
		}
		s.renewAt = s.sent + Time(s.cfg.TTL/3)
	case ev.Kind == Gone && (s.phase == live || s.phase == entering):
		s.lose(now)
	}
}

// begin makes the session live. The timer comes before anything that is owned under it.
func (s *State) begin(revision uint64) {
	s.phase, s.entered, s.renewing, s.renewAt = live, revision, false, s.sent+Time(s.cfg.TTL/3)
	s.emit(Effect{Kind: Arm, At: s.Until()})
	s.emit(Effect{Kind: Report, Outcome: Live, Lease: s.lease, Revision: revision})
}

// barred: there is an entry of this host's name. A former session of this owner, of which nothing
// is used any more, and one whose holder is known to be dead are ended; any other is another
// host's.
func (s *State) barred(now Time, ev Event) {
	s.calling = false
	switch {
	case ev.Other == s.lease: // ours: the answer to an earlier try was lost
		s.begin(ev.Revision)
		return
	case ev.Owner == s.cfg.Owner, s.cfg.Before != 0 && ev.Other == s.cfg.Before:
		s.emit(Effect{Kind: Revoke, Lease: ev.Other})
		s.retryAt = now + s.pause()
	default:
		s.emit(Effect{Kind: Report, Outcome: Taken, Boot: ev.Boot, Revision: ev.Revision})
		s.emit(Effect{Kind: Revoke, Lease: s.lease})
		s.phase, s.lease, s.retryAt = out, 0, now+4*s.pause()
	}
}

// claimed handles an answer to a claim that leaves no doubt.
func (s *State) claimed(ev Event) {
	n := s.names[ev.Name]
	if n == nil || n.place != claiming || n.token != ev.Token {
		return
	}
	n.calling = false
	switch {
	case ev.Kind == Refused && (ev.Other == s.lease || ev.Owner == s.cfg.Owner) && ev.Revision != 0:
		// Left over from this session, or from a former one, by a claim whose answer was lost: what
		// was held has stopped, or it would not be claimed.
		s.remove(n.name, ev.Revision, false)
		n.place = waiting
	case ev.Kind == Refused:
		s.forget(n)
		outcome := Taken
		if n.doubtful {
			outcome = Doubted
		}
		if !n.dropped {
			s.emit(Effect{Kind: Answer, Name: n.name, Outcome: outcome, Revision: ev.Revision})
		}
	case n.dropped:
		s.remove(n.name, ev.Revision, false)
		s.forget(n)
	case ev.Revision <= n.vanished:
		n.place, n.doubtful = waiting, true
	default:
		n.place, n.revision = held, ev.Revision
		s.emit(Effect{Kind: Own, Name: n.name, Revision: n.revision})
	}
	if n.dropped && n.place == waiting {
		s.forget(n)
	}
}

func (s *State) deleted(revision uint64, what Outcome) {
	if d := s.deletes[revision]; d != nil {
		delete(s.deletes, revision)
		if d.answer {
			s.emit(Effect{Kind: Answer, Name: d.name, Outcome: what})
		}
	}
}

// failed: a call may or may not have been done. All can be made again.
func (s *State) failed(now Time, ev Event) {
	switch ev.Of {
	case Grant:
		if s.phase == granting {
			s.phase, s.retryAt = out, now+s.pause()
		}
	case Enter:
		if s.phase == entering && ev.Lease == s.lease {
			s.calling, s.retryAt = false, now+s.pause()
		}
	case Renew:
		if s.phase == live && ev.Lease == s.lease {
			s.renewing, s.renewAt = false, now+s.pause()
		}
	case Revoke: // it ends by itself
		if s.phase == revoking && ev.Lease == s.lease {
			s.phase = ended
			s.emit(Effect{Kind: End})
		}
	case Claim:
		if n := s.names[ev.Name]; n != nil && n.place == claiming && n.token == ev.Token {
			n.calling, n.doubtful, n.retryAt = false, true, now+s.pause()
			if n.dropped {
				s.remove(n.name, n.revision, false) // or seen deletes it, if it comes to be
				s.forget(n)
			}
		}
	case Delete:
		if d := s.deletes[ev.Revision]; d != nil {
			d.calling, d.retryAt = false, now+s.pause()
		}
	default:
	}
}

// seen: the watch shows an entry. One of this session that nobody here waits for is what a claim
// has left that came to be after its caller had gone.
func (s *State) seen(ev Event) {
	if s.phase != live || ev.Lease != s.lease {
		return
	}
	switch n := s.names[ev.Name]; {
	case n == nil || n.token != ev.Token:
		s.remove(ev.Name, ev.Revision, false)
	case n.place == claiming:
		n.revision = ev.Revision
	}
}

// vanished: the watch shows that an entry was deleted. One that is held was taken away by another
// hand, or with the lease. It may be heard before the answer to the claim that made the entry.
func (s *State) vanished(now Time, ev Event) {
	if s.phase != live {
		return
	}
	if ev.Revision == s.entered {
		s.lose(now)
		return
	}
	switch n := s.names[ev.Name]; {
	case n == nil:
	case n.place == held && n.revision == ev.Revision:
		s.stop(n, now)
	case n.place == claiming:
		n.vanished = max(n.vanished, ev.Revision)
		if n.revision <= n.vanished {
			n.revision = 0
		}
	}
}

// listed: what a revision up to that of the listing has made and what is not in it was deleted,
// though the watch has not shown it.
func (s *State) listed(now Time, ev Event) {
	if s.phase != live {
		return
	}
	if s.entered <= ev.Revision && s.entered != ev.Entered {
		s.lose(now)
		return
	}
	for _, n := range s.sorted() {
		gone := ev.Revision
		if made := ev.Made[n.name]; made != 0 {
			gone = made - 1
		}
		if n.place == held && n.revision <= gone {
			s.stop(n, now)
		} else if n.place == claiming {
			n.vanished = max(n.vanished, gone)
		}
	}
}

// proceed makes the calls that are due.
func (s *State) proceed(now Time) {
	switch s.phase {
	case out:
		s.start(now)
	case entering:
		if s.closing {
			s.last()
		} else if !s.calling && now >= s.retryAt {
			s.calling = true
			s.emit(Effect{Kind: Enter, Lease: s.lease})
		}
	case live:
		s.work(now)
	case ending:
		s.leaveIfStopped(now)
		if s.phase == out {
			s.start(now)
		}
	case granting, revoking, ended:
	}
}

func (s *State) start(now Time) {
	switch {
	case s.closing && len(s.names) == 0:
		s.phase = ended
		s.emit(Effect{Kind: End})
	case !s.closing && now >= s.retryAt:
		s.phase = granting
		s.emit(Effect{Kind: Grant, Sent: now})
	}
}

// last ends the lease, and with it every entry.
func (s *State) last() {
	s.phase = revoking
	s.emit(Effect{Kind: Disarm})
	s.emit(Effect{Kind: Revoke, Lease: s.lease})
}

func (s *State) work(now Time) {
	if s.closing && len(s.names) == 0 {
		s.forgetDeletes()
		s.last()
		return
	}
	if !s.renewing && now >= s.renewAt {
		s.renewing = true
		s.emit(Effect{Kind: Renew, Lease: s.lease, Sent: now})
	}
	busy := make(map[string]bool)
	for _, revision := range slices.Sorted(maps.Keys(s.deletes)) {
		d := s.deletes[revision]
		busy[d.name] = true
		if !d.calling && now >= d.retryAt {
			d.calling = true
			s.emit(Effect{Kind: Delete, Name: d.name, Revision: d.revision})
		}
	}
	for _, n := range s.sorted() {
		if n.place == waiting && !busy[n.name] {
			s.token++
			n.place, n.token, n.revision, n.vanished, n.calling, n.retryAt = claiming, s.token, 0, 0, false, now
		}
		if n.place == claiming && !n.calling && now >= n.retryAt {
			n.calling = true
			s.emit(Effect{Kind: Claim, Name: n.name, Token: n.token, Lease: s.lease, Entered: s.entered})
		}
	}
}

// Margin returns how long before the end of a lease of ttl what is owned is told to stop, unless it
// is configured.
func Margin(ttl time.Duration) time.Duration { return max(ttl/10, 250*time.Millisecond) }
