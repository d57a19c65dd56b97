package quarantine

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// Time is the time since any moment that does not move.
type Time = time.Duration

// MaxSuspects bounds the keys of one death. A death with more tells too little and is not kept.
const MaxSuspects = 256

const (
	maxDeaths = 64      // deaths that nothing explains yet; the oldest is forgotten
	oneDeath  = 1 << 40 // what the parts of a death add up to
)

// Config sets when a key is quarantined, and for how long. New replaces zeros by the defaults.
type Config struct {
	Deaths int           // deaths for which a key is quarantined; default 2
	Window time.Duration // how long a death counts; default 10 min

	// Interval is the time from the quarantine to the first probe. It doubles with each probe that
	// dies, and each time that the key is quarantined again, up to MaxInterval. Defaults: 30 s and
	// 10 min.
	Interval, MaxInterval time.Duration

	// Expiry is the time after its last death when an entry is removed; default 1 h. It should be
	// above MaxInterval.
	Expiry time.Duration

	// Keys bounds the table; default 1,024. A key too many takes the place of the one whose last
	// death is the oldest.
	Keys int
}

// A Verdict says what to do with a call.
type Verdict uint8

// The verdicts.
const (
	Pass   Verdict = iota // run it as any other
	Alone                 // run it in a worker without other calls: it is a probe
	Refuse                // do not run it
)

// String returns the verdict's name.
func (v Verdict) String() string { return [...]string{"pass", "alone", "refuse"}[v] }

// An Entry is a key that is, or was, quarantined.
type Entry struct {
	Key      string
	Released bool          // by an answer or by hand: its calls pass
	Deaths   int           // that it explains
	Refused  int           // calls
	Probes   int           // that were let through
	Since    Time          // it was quarantined
	Last     Time          // its last death
	Until    Time          // it is forgotten, unless there is another death
	Next     Time          // a probe is let through from then on
	Interval time.Duration // from a probe that dies to the next
	Reason   string        // of its last death, as given to Died
}

// A death that nothing explains yet.
type death struct {
	at       Time
	reason   string
	suspects map[string]bool
}

// State is the table. Its zero value is not usable; use [New]. It is for one goroutine at a time.
type State struct {
	cfg        Config
	entries    map[string]*Entry
	probing    map[string]bool // keys with an Alone call that has not ended
	deaths     []death
	suspicions map[string]int // of how many deaths a key is suspected
}

// New returns an empty table.
func New(cfg Config) *State {
	cfg.Deaths = cmp.Or(cfg.Deaths, 2)
	cfg.Window = cmp.Or(cfg.Window, 10*time.Minute)
	cfg.Interval = cmp.Or(cfg.Interval, 30*time.Second)
	cfg.MaxInterval = max(cmp.Or(cfg.MaxInterval, 10*time.Minute), cfg.Interval)
	cfg.Expiry = cmp.Or(cfg.Expiry, time.Hour)
	cfg.Keys = cmp.Or(cfg.Keys, 1024)
	return &State{cfg: cfg, entries: map[string]*Entry{}, probing: map[string]bool{}, suspicions: map[string]int{}}
}

// Admit decides on a call with this key. A call that it lets run ends with Answered, Died or
// Dropped; until then no other of its key is Alone.
func (s *State) Admit(now Time, key string) Verdict {
	switch e := s.entry(now, key); {
	case e != nil && !e.Released:
		if s.probing[key] || now < e.Next {
			e.Refused++
			return Refuse
		}
		e.Probes++
	case s.suspicions[key] < s.cfg.Deaths || s.probing[key]:
		return Pass
	}
	s.probing[key] = true
	return Alone
}

// Guarded returns for each key that is quarantined or suspected whether [State.Admit] would let a
// call of it run as any other. It is for a caller whose calls are admitted by others: they refuse
// what must not run, ask Admit from time to time whether one may, and say what they refused.
func (s *State) Guarded(now Time) map[string]bool {
	passes := map[string]bool{}
	for key, n := range s.suspicions {
		passes[key] = n < s.cfg.Deaths
	}
	for key := range s.entries {
		if e := s.entry(now, key); e != nil && !e.Released {
			passes[key] = false
		}
	}
	return passes
}

// Refused says that so many calls of key were refused of which Admit did not know.
func (s *State) Refused(now Time, key string, n int) {
	if e := s.entry(now, key); e != nil {
		e.Refused += n
	}
}

// Answered says that a call has ended and its worker lives: with an answer, an error or a panic. It
// releases the key. It returns the keys that are quarantined because this one is cleared.
func (s *State) Answered(now Time, key string) []string {
	suspected := s.suspicions[key] > 0
	s.Release(now, key)
	if !suspected {
		return nil
	}
	return s.judge(now)
}

// Died says that a worker has died of itself with calls of these keys in flight; a key may be named
// more than once. If one call is known to be the cause, as when it was killed for its length, keys
// is that one alone and the others are Dropped. It returns the keys that are quarantined now.
func (s *State) Died(now Time, reason string, keys ...string) []string {
	d := death{now, reason, map[string]bool{}}
	explained := false
	for _, key := range keys {
		e := s.entry(now, key)
		if e != nil && !e.Released && !d.suspects[key] {
			explained = true
			e.Deaths, e.Last, e.Reason = e.Deaths+1, now, reason
			if s.probing[key] {
				s.delay(now, e)
			}
		}
		d.suspects[key] = true
		delete(s.probing, key)
	}
	if explained || len(d.suspects) > MaxSuspects {
		return nil
	}
	s.deaths = append(s.deaths, d)
	for key := range d.suspects {
		s.suspicions[key]++
	}
	return s.judge(now)
}

// Dropped says that a call has ended in a way that tells nothing: it was cancelled, or its worker
// was killed from outside or for another call.
func (s *State) Dropped(key string) { delete(s.probing, key) }

// Release clears key of all deaths so far and lets its calls pass. It reports whether the key was
// quarantined. Its entry remains, until it expires.
func (s *State) Release(now Time, key string) bool {
	for i := len(s.deaths) - 1; i >= 0 && s.suspicions[key] > 0; i-- {
		if s.deaths[i].suspects[key] {
			delete(s.deaths[i].suspects, key)
			s.unsuspect(key)
		}
	}
	delete(s.probing, key)
	e := s.entry(now, key)
	if e == nil || e.Released {
		return false
	}
	e.Released = true
	return true
}

// Forget removes all that is known of key, and reports whether it had an entry.
func (s *State) Forget(now Time, key string) bool {
	s.Release(now, key)
	_, found := s.entries[key]
	delete(s.entries, key)
	return found
}

// List returns the entries, sorted by key.
func (s *State) List(now Time) []Entry {
	list := []Entry{}
	for _, key := range slices.Sorted(maps.Keys(s.entries)) {
		if e := s.entry(now, key); e != nil {
			list = append(list, *e)
		}
	}
	return list
}

// Len returns how many keys are quarantined. It changes nothing.
func (s *State) Len(now Time) (n int) {
	for _, e := range s.entries {
		if !e.Released && now-e.Last < s.cfg.Expiry {
			n++
		}
	}
	return n
}

// Entry returns the entry of key, if it has one.
func (s *State) Entry(now Time, key string) (Entry, bool) {
	if e := s.entry(now, key); e != nil {
		return *e, true
	}
	return Entry{}, false
}

func (s *State) entry(now Time, key string) *Entry {
	e := s.entries[key]
	if e != nil && now-e.Last >= s.cfg.Expiry {
		delete(s.entries, key)
		return nil
	}
	if e != nil {
		e.Until = e.Last + s.cfg.Expiry
	}
	return e
}

// judge quarantines the keys that explain their deaths best, one after the other, since each takes
// its deaths away from the others. The order makes no difference: what explains its deaths best
// does so after another is quarantined, which has no death in common with it.
func (s *State) judge(now Time) (quarantined []string) {
	for len(s.deaths) > maxDeaths || len(s.deaths) > 0 && now-s.deaths[0].at >= s.cfg.Window {
		s.drop(0)
	}
	for {
		var suspects []string
		for key, n := range s.suspicions {
			if n >= s.cfg.Deaths {
				suspects = append(suspects, key)
			}
		}
		if suspects == nil {
			return quarantined
		}
		scores := map[string]int64{}
		for _, d := range s.deaths {
			for key := range d.suspects {
				scores[key] += oneDeath / int64(len(d.suspects))
			}
		}
		slices.Sort(suspects)
		i := slices.IndexFunc(suspects, func(key string) bool { return s.explainsBest(key, scores) })
		if i < 0 {
			return quarantined
		}
		s.quarantine(now, suspects[i])
		quarantined = append(quarantined, suspects[i])
	}
}

// explainsBest reports whether key has a higher score than each suspect beside it.
func (s *State) explainsBest(key string, scores map[string]int64) bool {
	for _, d := range s.deaths {
		if !d.suspects[key] {
			continue
		}
		for other := range d.suspects {
			if other != key && scores[key]-scores[other] < maxDeaths { // each part may be short by 1
				return false
			}
		}
	}
	return true
}

func (s *State) quarantine(now Time, key string) {
	e := s.entry(now, key)
	if e == nil {
		if len(s.entries) >= s.cfg.Keys {
			delete(s.entries, slices.MinFunc(slices.Collect(maps.Values(s.entries)), func(a, b *Entry) int {
				return cmp.Or(cmp.Compare(a.Last, b.Last), cmp.Compare(a.Key, b.Key))
			}).Key)
		}
		e = &Entry{Key: key}
		s.entries[key] = e
	}
	e.Released, e.Since = false, now
	s.delay(now, e)
	for i := 0; i < len(s.deaths); {
		d := s.deaths[i]
		if !d.suspects[key] {
			i++
			continue
		}
		e.Deaths, e.Last, e.Reason = e.Deaths+1, d.at, d.reason
		s.drop(i)
	}
}

// delay puts off the next probe, twice as long as the last time.
func (s *State) delay(now Time, e *Entry) {
	e.Interval = min(max(2*e.Interval, s.cfg.Interval), s.cfg.MaxInterval)
	e.Next = now + e.Interval
}

// drop forgets a death.
func (s *State) drop(i int) {
	for key := range s.deaths[i].suspects {
		s.unsuspect(key)
	}
	s.deaths = slices.Delete(s.deaths, i, i+1)
}

func (s *State) unsuspect(key string) {
	if s.suspicions[key]--; s.suspicions[key] == 0 {
		delete(s.suspicions, key)
	}
}
