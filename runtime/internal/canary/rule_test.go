package canary

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// recorded are the latencies of 4,000 requests to a handler of package http that encodes JSON, with
// 8 clients on two cores.
func recorded(t *testing.T) (all []time.Duration) {
	t.Helper()
	b, err := os.ReadFile("testdata/latencies.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range strings.Fields(string(b)) {
		us, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, time.Duration(us)*time.Microsecond)
	}
	return all
}

// generation is how one behaves.
type generation struct {
	crash  float64 // share of its requests that crash it
	errors float64
	slower float64 // factor
	leak   int64   // bytes a minute
}

// trial is a canary in virtual time: one worker of the new generation beside three, at 200
// requests a second, looked at every other second.
type trial struct {
	rule          *State
	r             *rand.Rand
	recorded      []time.Duration
	before, after generation

	now      Time
	counters [2]Recorder
	sides    [2]Side
}

func (x *trial) serve(side int, g generation, workers, n int) {
	s := &x.sides[side]
	for range n {
		u := x.r.Uint64()
		d := x.recorded[int(u>>44)%len(x.recorded)]
		x.counters[side].Served(time.Duration(float64(d)*max(g.slower, 1)), float64(u&(1<<22-1)) < g.errors*(1<<22))
		if float64(u>>22&(1<<22-1)) < g.crash*(1<<22) {
			s.Crashes++
		}
	}
	s.Workers, s.Grew = workers, x.now
	s.Time += time.Duration(workers) * 2 * time.Second
	s.Growth = int64(float64(x.r.IntN(2<<20)) + float64(g.leak)*x.now.Minutes())
	s.Figures = *x.counters[side].Figures()
}

// run returns the verdict. The old generation has run for ten minutes before.
func (x *trial) run() Verdict {
	x.sides[0].Time = 3 * 10 * time.Minute
	x.sides[0].Crashes = int(x.before.crash * 150 * 600)
	for {
		x.now += 2 * time.Second
		x.serve(0, x.before, 3, 300)
		x.serve(1, x.after, 1, 100)
		if v := x.rule.Step(x.now, x.sides[0], x.sides[1]); v.Course >= Forward {
			return v
		}
	}
}

var standard = Config{For: time.Minute, Requests: 2000, Crashes: 2, Errors: 0.005, Slower: 1.1, Memory: 4 << 20}

// TestSameOnBothSides: generations that do not differ, of 1,000: how many are taken for worse. Also
// when both have errors and crashes.
func TestSameOnBothSides(t *testing.T) {
	samples, runs := recorded(t), 1000
	if testing.Short() {
		runs = 100
	}
	for name, g := range map[string]generation{"sound": {}, "with errors": {errors: 0.02}, "with crashes": {crash: 1.0 / 2000, errors: 0.001}} {
		t.Run(name, func(t *testing.T) {
			alarms, runs := map[string]int{}, runs
			if name != "sound" {
				runs /= 4
			}
			for seed := range runs {
				x := trial{rule: New(standard), r: rand.New(rand.NewPCG(uint64(seed), 1)), recorded: samples, before: g, after: g}
				if v := x.run(); v.Course != Forward {
					what, _, _ := strings.Cut(v.Why, ":")
					alarms[what]++
				}
			}
			t.Logf("false alarms of %d: %v", runs, alarms)
			n := 0
			for _, c := range alarms {
				n += c
			}
			if n*100 > runs {
				t.Errorf("false alarms of %d: %v", runs, alarms)
			}
		})
	}
}

// TestWorse: each of the bad generations is found, and by what is bad in it.
func TestWorse(t *testing.T) {
	samples := recorded(t)
	for _, tt := range []struct {
		name string
		g    generation
		want string
	}{
		{"crashes 1 in 200", generation{crash: 1.0 / 200}, "it crashes"},
		{"2 % errors", generation{errors: 0.02}, "its requests fail"},
		{"30 % slower", generation{slower: 1.3}, "it is slower"},
		{"leaks 5 MiB a minute, and 10", generation{leak: 10 << 20}, "its memory grows"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const runs = 100
			var took Time
			var harmed uint64
			found := 0
			for seed := range runs {
				x := trial{rule: New(standard), r: rand.New(rand.NewPCG(uint64(seed), 2)), recorded: samples, after: tt.g}
				v := x.run()
				if v.Course == Back && strings.HasPrefix(v.Why, tt.want+": new and old: ") {
					found++
				} else {
					t.Logf("%+v", v)
				}
				took += x.now
				harmed += x.sides[1].Failed + uint64(x.sides[1].Crashes)
				if tt.g.slower > 0 || tt.g.leak > 0 {
					harmed += x.sides[1].Requests
				}
			}
			t.Logf("found %d of %d; in the mean after %v, with %.0f requests harmed", found, runs, (took / runs).Round(time.Second/10), float64(harmed)/runs)
			if found < runs*97/100 {
				t.Errorf("found %d of %d", found, runs)
			}
		})
	}
}

// TestVerdicts: what needs no sample, and what waits for one.
func TestVerdicts(t *testing.T) {
	side := func(requests, failed uint64) Side {
		return Side{Figures: Figures{Requests: requests, Failed: failed, Latency: []uint64{0, requests}}, Time: time.Minute, Workers: 1}
	}
	reported := func(good, bad uint64) Side {
		return Side{Figures: Figures{Good: good, Bad: bad}, Time: time.Minute, Workers: 1}
	}
	crashed := func(n int) Side { return Side{Crashes: n, Time: time.Minute, Workers: 1} }
	grown := func(n int64) Side { return Side{Growth: n, Grew: time.Minute, Workers: 1} }
	gone := side(5000, 0)
	gone.Workers = 0
	late := standard
	late.Late = true
	for _, tt := range []struct {
		name          string
		cfg           Config
		at            Time
		before, after Side
		want          Course
		why           string
	}{
		{"early", standard, time.Second, side(9000, 0), side(3000, 0), Wait, "new and old: "},
		{"nothing is worse", standard, time.Minute, side(9000, 9), side(3000, 3), Forward, "new and old: 0 and 0 crashes, 3000 and 9000 requests, 0.10 % and 0.10 % failed"},
		{"a small sample", standard, time.Minute, side(9000, 0), side(1999, 100), Hold, "each needs 2000 requests: "},
		{"a small sample of the old one", standard, time.Minute, side(1999, 0), side(9000, 0), Hold, "each needs 2000 requests: "},
		{"a late one with a small sample", late, time.Minute, side(9000, 0), side(1, 0), Forward, "new and old: "},
		{"its workers are gone", standard, time.Minute, side(9000, 0), gone, Hold, "each needs"},
		{"errors", standard, time.Second, side(9000, 0), side(3000, 90), Back, "its requests fail: new and old: 0 and 0 crashes, 3000 and 9000 requests, 3.00 % and 0.00 % failed"},
		{"errors of both", standard, time.Minute, side(9000, 300), side(3000, 100), Forward, "new and old: "},
		{"its own verdict", standard, time.Second, reported(9000, 0), reported(2900, 100), Back, "it reports what is bad: "},
		{"its own verdict, of both", standard, time.Minute, reported(9000, 300), reported(2900, 100), Forward, "new and old: "},
		{"one crash", standard, time.Minute, side(9000, 0), crashed(1), Hold, "each needs"},
		{"two crashes", standard, time.Second, side(9000, 0), crashed(2), Back, "it crashes: new and old: 2 and 0 crashes"},
		{"crashes of both", standard, time.Second, crashed(2), crashed(8), Wait, "new and old: 8 and 2 crashes"},
		{"many more", standard, time.Second, crashed(2), crashed(9), Back, "it crashes: "},
		{"memory", standard, time.Second, grown(1 << 20), grown(6 << 20), Back, "its memory grows: "},
		{"memory of both", standard, time.Second, grown(5 << 20), grown(6 << 20), Wait, "new and old: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := New(tt.cfg)
			var v Verdict
			for range looks {
				v = s.Step(tt.at, tt.before, tt.after)
			}
			if v.Course != tt.want || !strings.HasPrefix(v.Why, tt.why) {
				t.Errorf("%+v, want %d %q", v, tt.want, tt.why)
			}
		})
	}
	s := New(standard)
	for range looks - 1 {
		if v := s.Step(time.Minute, side(9000, 0), side(3000, 90)); v.Course != Wait {
			t.Errorf("%+v after a look that may have met a hiccup", v)
		}
	}
}

// TestHiccup: a new generation that stood still for a moment, with all its clients waiting, is not
// slower; one that does so all the time is.
func TestHiccup(t *testing.T) {
	for _, tt := range []struct {
		slow   int // requests, in the fifth second
		always bool
		want   Course
	}{{100, false, Forward}, {4, true, Back}} {
		x := trial{rule: New(standard), r: rand.New(rand.NewPCG(1, 3)), recorded: []time.Duration{time.Millisecond}}
		for x.now < 2*time.Minute {
			x.now += time.Second
			x.serve(0, generation{}, 3, 150)
			x.serve(1, generation{}, 1, 50)
			if tt.always || x.now == 5*time.Second {
				for range tt.slow {
					x.counters[1].Served(30*time.Millisecond, false)
				}
			}
			if v := x.rule.Step(x.now, x.sides[0], x.sides[1]); v.Course >= Forward {
				if v.Course != tt.want {
					t.Errorf("%+v", v)
				}
				break
			}
		}
	}
}

// TestFigures: what a worker counts comes to its numbers, and counting allocates nothing.
func TestFigures(t *testing.T) {
	for i := range Buckets - 1 {
		if bucket(bound(i)) != i || bucket(bound(i+1)-1) != i {
			t.Errorf("bucket %d from %v to %v: %d, %d", i, bound(i), bound(i+1), bucket(bound(i)), bucket(bound(i+1)-1))
		}
	}
	if bucket(-1) != 0 || bucket(time.Hour) != Buckets-1 {
		t.Error("what is out of range")
	}
	var c Recorder
	samples := recorded(t)
	failed := uint64(0)
	for _, d := range samples {
		c.Served(d, d > time.Millisecond)
		if d > time.Millisecond {
			failed++
		}
	}
	c.Report(3, 1)
	b, err := json.Marshal(c.Figures())
	if err != nil {
		t.Fatal(err)
	}
	var f, sum Figures
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	sum.Add(f, 1)
	sum.Add(f, 1)
	sum.Add(f, -1)
	if sum.Requests != uint64(len(samples)) || sum.Good != 3 || sum.Bad != 1 || sum.Failed != failed {
		t.Errorf("%+v", sum)
	}
	if p := sum.Quantile(0.5, 0); p < 60*time.Microsecond || p > 90*time.Microsecond || sum.Quantile(0.5, 3) <= p || sum.Quantile(0.5, -3) >= p {
		t.Errorf("p50 %v", p)
	}
	sum.Add(Figures{Requests: 1 << 40, Latency: make([]uint64, 10000)}, -1)
	if sum.Requests != 0 || len(sum.Latency) > Buckets {
		t.Errorf("%d requests, %d buckets", sum.Requests, len(sum.Latency))
	}
	if n := testing.AllocsPerRun(100, func() { c.Served(time.Millisecond, true); c.Report(1, 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
