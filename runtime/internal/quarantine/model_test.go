package quarantine

import (
	"math/big"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"
)

// model decides as doc.go says, slowly: it goes through all that has happened each time, in
// fractions, with the whole history.
type model struct {
	cfg     Config
	deaths  []modelDeath
	entries map[string]*modelEntry
	probing []string
}

type modelDeath struct {
	at       Time
	suspects []string
	gone     bool // explained
}

type modelEntry struct {
	released             bool
	last, next, interval time.Duration
}

func (m *model) quarantined(now Time, key string) *modelEntry {
	if e := m.known(now, key); e != nil && !e.released {
		return e
	}
	return nil
}

func (m *model) known(now Time, key string) *modelEntry {
	if e := m.entries[key]; e != nil && e.last+m.cfg.Expiry > now {
		return e
	}
	delete(m.entries, key)
	return nil
}

// suspectedOf returns the deaths that still count against key.
func (m *model) suspectedOf(key string) (of []modelDeath) {
	for _, d := range m.deaths {
		if !d.gone && slices.Contains(d.suspects, key) {
			of = append(of, d)
		}
	}
	return of
}

func (m *model) score(key string) *big.Rat {
	sum := new(big.Rat)
	for _, d := range m.suspectedOf(key) {
		sum.Add(sum, big.NewRat(1, int64(len(d.suspects))))
	}
	return sum
}

func (m *model) admit(now Time, key string) Verdict {
	probing := slices.Contains(m.probing, key)
	if e := m.quarantined(now, key); e != nil {
		if probing || now < e.next {
			return Refuse
		}
	} else if len(m.suspectedOf(key)) < m.cfg.Deaths || probing {
		return Pass
	}
	m.probing = append(m.probing, key)
	return Alone
}

func (m *model) dropped(key string) {
	m.probing = slices.DeleteFunc(m.probing, func(k string) bool { return k == key })
}

func (m *model) release(now Time, key string) (suspected bool) {
	suspected = len(m.suspectedOf(key)) > 0
	for i, d := range m.deaths {
		m.deaths[i].suspects = slices.DeleteFunc(slices.Clone(d.suspects), func(k string) bool { return k == key })
	}
	m.dropped(key)
	if e := m.known(now, key); e != nil {
		e.released = true
	}
	return suspected
}

func (m *model) died(now Time, keys []string) []string {
	slices.Sort(keys)
	keys = slices.Compact(keys)
	explained := false
	for _, key := range keys {
		if e := m.quarantined(now, key); e != nil {
			explained = true
			e.last = now
			if slices.Contains(m.probing, key) {
				e.interval = min(2*e.interval, m.cfg.MaxInterval)
				e.next = now + e.interval
			}
		}
		m.dropped(key)
	}
	if explained {
		return nil
	}
	m.deaths = append(m.deaths, modelDeath{at: now, suspects: keys})
	return m.judge(now)
}

func (m *model) judge(now Time) (guilty []string) {
	for i, d := range m.deaths {
		m.deaths[i].gone = d.gone || now-d.at >= m.cfg.Window
	}
	for {
		var best string
		found := false
		for _, key := range modelKeys {
			of := m.suspectedOf(key)
			explains := len(of) >= m.cfg.Deaths
			for _, d := range of {
				for _, other := range d.suspects {
					explains = explains && (other == key || m.score(key).Cmp(m.score(other)) > 0)
				}
			}
			if explains && !found {
				best, found = key, true
			}
		}
		if !found {
			return guilty
		}
		e := m.known(now, best)
		if e == nil {
			e = &modelEntry{interval: m.cfg.Interval / 2}
			m.entries[best] = e
		}
		e.released, e.interval = false, min(2*e.interval, m.cfg.MaxInterval)
		e.next = now + e.interval
		for i, d := range m.deaths {
			if !d.gone && slices.Contains(d.suspects, best) {
				m.deaths[i].gone = true
				e.last = d.at
			}
		}
		guilty = append(guilty, best)
	}
}

var modelKeys = []string{"a", "b", "c", "d", "e"}

// follow lets bytes be calls and their ends, and compares the table with the model after each.
func follow(t *testing.T, b []byte) {
	t.Helper()
	cfg := Config{Deaths: 2, Window: 40, Interval: 8, MaxInterval: 20, Expiry: 100, Keys: 5}
	if len(b) > 0 {
		cfg.Deaths = 1 + int(b[0]%3)
	}
	s, m := New(cfg), &model{cfg: cfg, entries: map[string]*modelEntry{}}
	now := Time(0)
	for i := 0; i+1 < len(b); i += 2 {
		what, key := b[i]%8, modelKeys[int(b[i+1])%len(modelKeys)]
		var got, want []string
		switch what {
		case 0, 1, 2:
			if got, want := s.Admit(now, key), m.admit(now, key); got != want {
				t.Fatalf("step %d: %v, model %v", i, got, want)
			}
		case 3:
			got = s.Answered(now, key)
			if m.release(now, key) {
				want = m.judge(now)
			}
		case 4, 5:
			var keys []string
			for k, name := range modelKeys {
				if b[i+1]>>k&1 == 1 {
					keys = append(keys, name, name)
				}
			}
			got = s.Died(now, "", keys...)
			want = m.died(now, keys)
		case 6:
			s.Dropped(key)
			m.dropped(key)
		case 7:
			now += Time(b[i+1] % 32)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("step %d at %d: quarantined %q, model %q", i, now, got, want)
		}
		for _, key := range modelKeys {
			e, known := s.Entry(now, key)
			if mine := m.known(now, key); known != (mine != nil) || known && (e.Released != mine.released || e.Next != mine.next || e.Last != mine.last) {
				t.Fatalf("step %d at %d: entry of %s: %+v, model %+v", i, now, key, e, mine)
			}
		}
		if len(s.deaths) > maxDeaths || len(s.List(now)) > cfg.Keys {
			t.Fatalf("step %d: %d deaths, %d entries", i, len(s.deaths), len(s.entries))
		}
	}
}

// TestModel compares the table with a slow one, over random calls.
func TestModel(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		b := make([]byte, 200)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		follow(t, b)
	}
}

// FuzzState compares the table with a slow one.
func FuzzState(f *testing.F) {
	f.Add([]byte{1, 1, 4, 3, 4, 5, 0, 0, 7, 9, 0, 0, 4, 1, 7, 31, 0, 0, 3, 0})
	f.Add([]byte{1, 1, 4, 3, 5, 3, 0, 0, 0, 1, 3, 0, 0, 1, 6, 1, 7, 20, 7, 31, 7, 31, 7, 31, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) <= 256 {
			follow(t, b)
		}
	})
}

// TestFalsePositives plays workers with several calls each, of which 1 in 1,000 has a key that
// kills, and a leak that kills whatever runs. It counts the innocent keys that are quarantined
// against the bound of doc.go, and the deaths of each guilty key before it was.
func TestFalsePositives(t *testing.T) {
	const (
		inFlight = 8
		rounds   = 20_000 // of inFlight calls that end together
		innocent = 2_000  // keys; the first of them has half of the calls
		guilty   = 4
	)
	calls, killed, quarantined := 0, 0, 0
	for seed := range uint64(5) {
		r := rand.New(rand.NewPCG(seed, 2))
		s, deaths := New(Config{Interval: time.Hour, MaxInterval: time.Hour, Expiry: 2 * time.Hour}), map[string]int{}
		for range rounds {
			var keys []string
			dies := r.IntN(5_000) == 0
			for range inFlight {
				key := "popular"
				if r.IntN(1_000) == 0 {
					key = "guilty " + strconv.Itoa(r.IntN(guilty))
				} else if r.IntN(2) == 0 {
					key = "rare " + strconv.Itoa(r.IntN(innocent))
				}
				if s.Admit(0, key) == Refuse {
					continue
				}
				keys = append(keys, key)
				dies = dies || key[0] == 'g'
			}
			for _, key := range keys {
				if key[0] != 'g' {
					calls++
					if dies {
						killed++
					}
				}
				if dies && key[0] == 'g' {
					deaths[key]++
				}
			}
			if dies {
				s.Died(0, "", keys...)
				continue
			}
			for _, key := range keys {
				s.Answered(0, key)
			}
		}
		for _, e := range s.List(0) {
			if e.Key[0] != 'g' {
				quarantined++
			}
		}
		for i := range guilty {
			key := "guilty " + strconv.Itoa(i)
			if e, ok := s.Entry(0, key); !ok || e.Released || deaths[key] > 4 {
				t.Errorf("seed %d: %s after %d deaths: %+v", seed, key, deaths[key], e)
			}
		}
	}
	q := float64(killed) / float64(calls)
	bound := float64(calls) * q * q
	t.Logf("%d calls of innocent keys, %d killed; %d keys quarantined, at most %.1f expected", calls, killed, quarantined, bound)
	if float64(quarantined) > bound+1 {
		t.Errorf("%d innocent keys quarantined, bound %.1f", quarantined, bound)
	}
}

// TestOneCause: while one key is the cause of all deaths, no other is quarantined, however many run
// beside it, again and again, and however few are answered: none explains the deaths better.
func TestOneCause(t *testing.T) {
	const guilty = "guilty"
	most := 0
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 3))
		s := New(Config{Interval: time.Minute, Deaths: 2 + r.IntN(2)})
		keys, answers := 1+r.IntN(30), r.IntN(4)
		workers := make([][]string, 1+r.IntN(4))
		now, deaths := Time(0), 0
		for range 2_000 {
			now += time.Duration(r.IntN(1_000)) * time.Millisecond
			w := &workers[r.IntN(len(workers))]
			key := "innocent " + strconv.Itoa(r.IntN(keys))
			switch n := r.IntN(100); {
			case n == 0:
				if key = guilty; s.Admit(now, key) != Refuse {
					s.Died(now, "", append(*w, key)...)
					*w = nil
					if e, _ := s.Entry(now, guilty); e.Since == 0 {
						deaths++
					}
				}
			case n < 10*answers && len(*w) > 0:
				i := r.IntN(len(*w))
				s.Answered(now, (*w)[i])
				*w = slices.Delete(*w, i, i+1)
			case len(*w) < 20 && s.Admit(now, key) != Refuse:
				*w = append(*w, key)
			}
			for _, e := range s.List(now) {
				if e.Key != guilty {
					t.Fatalf("seed %d: %+v", seed, e)
				}
			}
		}
		most = max(most, deaths)
	}
	t.Logf("at most %d deaths until it was quarantined", most)
}
