package autoscale

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/scenariotest"
)

// world is a pool under load, in virtual time: connections come, wait in one queue, and each worker
// takes so many a second. It is sampled every step.
type world struct {
	rule     *State
	now      Time
	size     int
	rate     float64 // connections that come in a second
	capacity float64 // connections that a worker takes in a second
	start    Time    // how long a new worker takes
	fails    bool    // new workers do not come up
	held     string
	limited  bool // the listener has a limit, so that it is known how many workers are full

	queue   []arrival
	next    Sample
	nextAt  Time // the scaling under way is over then; 0: none
	changes []change
}

type arrival struct {
	at Time
	n  float64
}

type change struct {
	at       Time
	from, to int
	why      string
}

const step = 100 * time.Millisecond

func newWorld(cfg Config) *world {
	return &world{rule: New(cfg), size: cfg.Min, capacity: 10, start: time.Second}
}

// run lets time pass.
func (w *world) run(d Time) {
	for end := w.now + d; w.now < end; {
		w.now += step
		if n := w.rate * step.Seconds() / 10; len(w.queue) > 0 || w.rate > float64(w.size)*w.capacity {
			for i := range Time(10) {
				w.queue = append(w.queue, arrival{w.now - step + i*step/10, n})
			}
		}
		for took := float64(w.size) * w.capacity * step.Seconds(); took > 0 && len(w.queue) > 0; {
			n := min(took, w.queue[0].n)
			took -= n
			if w.queue[0].n -= n; w.queue[0].n < 1e-9 {
				w.queue = w.queue[1:]
			}
		}
		if w.nextAt > w.now {
			continue // the driver waits for the scaling
		}
		if w.nextAt != 0 {
			w.size, w.nextAt = w.next.Size, 0
		}
		s := Sample{Size: w.size, Held: w.held, Failed: w.next.Failed}
		w.next.Failed = false
		if len(w.queue) > 0 {
			s.Oldest = w.now - w.queue[0].at
		}
		if w.limited {
			s.Need = w.rate / w.capacity
		}
		d := w.rule.Step(w.now, s)
		if d.Size == 0 {
			continue
		}
		w.changes = append(w.changes, change{w.now, w.size, d.Size, d.Why})
		w.next, w.nextAt = Sample{Size: d.Size}, w.now+step
		if d.Size > w.size {
			w.nextAt = w.now + w.start
			if w.fails {
				w.next = Sample{Size: w.size, Failed: true}
			}
		}
	}
}

// TestScenarios plays testdata/*.txt. A line that is not indented is a command:
//
//	config min=1 max=8 wait=200ms calm=1m
//	rate 25, to 60 in 10m   connections a second; a worker takes 10
//	limited                 it is known how many workers are full
//	run 5m, held a reload runs, free, set 12, fails, works
//
// What follows indented are the changes, and the size.
func TestScenarios(t *testing.T) {
	scenariotest.Run(t, func(t *testing.T) func(f []string, say scenariotest.Say) {
		var w *world
		return func(f []string, say scenariotest.Say) {
			if f[0] == "config" {
				w = newWorld(parseConfig(t, f[1:]))
				return
			}
			w.changes = nil
			switch f[0] {
			case "rate":
				w.rate = number(t, f[1])
			case "to":
				from, d := w.rate, duration(t, f[3])
				for began := w.now; w.now-began < d; w.run(step) {
					w.rate = from + (number(t, f[1])-from)*float64(w.now-began)/float64(d)
				}
			case "run":
				w.run(duration(t, f[1]))
			case "limited":
				w.limited = true
			case "held":
				w.held = strings.Join(f[1:], " ")
			case "free":
				w.held = ""
			case "set":
				w.size = int(number(t, f[1]))
			case "fails", "works":
				w.fails = f[0] == "fails"
			default:
				t.Fatalf("no command %q", f)
			}
			for _, c := range w.changes {
				say("%v: %d to %d: %s", c.at, c.from, c.to, c.why)
			}
			if f[0] == "run" || f[0] == "to" {
				say("%d workers; %s", w.size, w.rule.Step(w.now, Sample{Size: w.rule.size, Held: w.held}).Why)
			}
		}
	})
}

func parseConfig(t *testing.T, fields []string) (cfg Config) {
	for _, f := range fields {
		key, value, _ := strings.Cut(f, "=")
		switch key {
		case "min":
			cfg.Min = int(number(t, value))
		case "max":
			cfg.Max = int(number(t, value))
		case "wait":
			cfg.Wait = duration(t, value)
		case "calm":
			cfg.Calm = duration(t, value)
		default:
			t.Fatalf("no setting %q", key)
		}
	}
	return cfg
}

func number(t *testing.T, s string) float64 {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func duration(t *testing.T, s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestNoFlapping: under a load that stays, in the mean, the size comes to what is needed, and then
// there are at most two steps down in maxPatience Calms.
func TestNoFlapping(t *testing.T) {
	for seed := range uint64(24) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			cfg := Config{Min: 1 + r.IntN(3), Wait: 200 * time.Millisecond, Calm: time.Duration(5+r.IntN(30)) * time.Second}
			cfg.Max = cfg.Min + r.IntN(20)
			w := newWorld(cfg)
			w.limited = r.IntN(4) == 0
			mean := (float64(cfg.Min) + r.Float64()*float64(cfg.Max-cfg.Min)) * w.capacity * 0.95
			noise := r.Float64() * 0.04
			settled := 100 * cfg.Calm
			for w.now < settled+160*cfg.Calm {
				w.rate = mean * (1 + noise*(2*r.Float64()-1))
				w.run(time.Second)
			}
			tries := 0
			for _, c := range w.changes {
				if c.at > settled && c.to < c.from {
					tries++
				}
			}
			if tries > 2*160/maxPatience+2 {
				t.Errorf("%+v, %.1f connections a second: %d steps down in 160 Calms; %d changes in all", cfg, mean, tries, len(w.changes))
			}
			if need := int(mean/w.capacity + 0.999); w.size < need-1 || w.size > need+1 && !w.limited {
				t.Errorf("%+v: %d workers, %.2f are needed", cfg, w.size, mean/w.capacity)
			}
		})
	}
}

// TestBounds: whatever is measured, the size goes only from one within the bounds to another, and
// not while it is held.
func TestBounds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		cfg := Config{Min: 1 + r.IntN(4), Wait: time.Second, Calm: time.Minute}
		cfg.Max = cfg.Min + r.IntN(5)
		s, now := New(cfg), Time(0)
		for range 300 {
			now += time.Duration(r.IntN(40)) * time.Second
			x := Sample{Size: 1 + r.IntN(cfg.Max+2), Oldest: time.Duration(r.IntN(2)) * time.Second, Need: 3 * r.Float64(), Failed: r.IntN(9) == 0}
			if r.IntN(5) == 0 {
				x.Held = "held"
			}
			d := s.Step(now, x)
			within := func(n int) bool { return n >= cfg.Min && n <= cfg.Max }
			if d.Why == "" || d.Size != 0 && (!within(d.Size) || !within(x.Size) || x.Held != "" || d.Size == x.Size) {
				t.Fatalf("%+v, %+v: %+v", cfg, x, d)
			}
		}
	}
}

// TestBacklog: the age is never more than the oldest connection's, and the queue's samples alone
// tell it.
func TestBacklog(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		var b Backlog
		var queue []Time
		accepted, now := uint64(1000), Time(0)
		known := Time(0) // the oldest was there at that sample
		for range 200 {
			now += time.Second
			for range r.IntN(4) {
				queue = append(queue, now)
			}
			n := min(r.IntN(5), len(queue))
			accepted += uint64(n)
			queue = queue[n:]
			got := b.Age(now, accepted, len(queue))
			if len(queue) == 0 {
				if known = 0; got != 0 {
					t.Fatalf("age %v of an empty queue", got)
				}
				continue
			}
			known = now - queue[0]
			if got > known {
				t.Fatalf("age %v, and the oldest has waited for %v", got, known)
			}
			if got != known && len(queue) < maxMarks {
				t.Fatalf("age %v of one that every sample saw for %v", got, known)
			}
		}
	}
	var b Backlog
	b.Age(0, 500, 3)
	if got := b.Age(time.Second, 2, 3); got != 0 { // another listener process, which counts from 0
		t.Errorf("age %v", got)
	}
	if got := b.Age(3*time.Second, 4, 1); got != 2*time.Second {
		t.Errorf("age %v", got)
	}
}
