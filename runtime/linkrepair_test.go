package coppice

import (
	"testing"
	"time"
)

// What happens when an end reports that a link has ended: which report counts, how long it takes
// until the next link, and when the worker is replaced.
func TestLinkage(t *testing.T) {
	type say struct {
		at     time.Duration
		number uint64
		short  bool
		pause  time.Duration // 0: it is no news
		again  bool
	}
	const s, ms = time.Second, time.Millisecond
	for _, tt := range []struct {
		name string
		own  bool // the worker's word
		says []say
	}{
		{"both ends say so", false, []say{{0, 1, false, 50 * ms, true}, {1 * ms, 1, false, 0, false}}},
		{"one says so late", false, []say{{0, 1, false, 50 * ms, true}, {60 * ms, 1, false, 0, false}}},
		{"a link of the future", false, []say{{0, 2, false, 0, false}}},
		{"none yet", false, []say{{0, 0, false, 0, false}}},
		{"again and again", false, []say{
			{0, 1, false, 50 * ms, true},
			{s, 2, false, 100 * ms, true},
			{2 * s, 3, false, 200 * ms, true},
			{3 * s, 4, false, 400 * ms, false},
		}},
		{"now and then", false, []say{
			{0, 1, false, 50 * ms, true},
			{61 * s, 2, false, 50 * ms, true},
			{122 * s, 3, false, 50 * ms, true},
			{183 * s, 4, false, 50 * ms, true},
			{244 * s, 5, false, 50 * ms, true},
		}},
		{"a worker that lacks descriptors for good", true, []say{
			{0, 1, true, 50 * ms, true},
			{s, 2, true, 100 * ms, true},
			{2 * s, 3, true, 200 * ms, true},
			{3 * s, 4, true, 400 * ms, true},
			{4 * s, 5, true, 800 * ms, true},
			{5 * s, 6, true, s, true},
			{6 * s, 7, true, s, true},
			{7 * s, 8, true, s, true},
			{8 * s, 9, true, s, true},
			{9 * s, 10, true, s, true},
			{10 * s, 11, true, s, false},
		}},
		{"a listener process out of descriptors for long", false, []say{
			{0, 1, true, 50 * ms, true},
			{s, 2, true, 100 * ms, true},
			{2 * s, 3, true, 200 * ms, true},
			{3 * s, 4, true, 400 * ms, true},
			{4 * s, 5, true, 800 * ms, true},
			{5 * s, 6, true, s, true},
			{6 * s, 7, true, s, true},
			{7 * s, 8, true, s, true},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var l linkHealth
			last := uint64(0)
			begin := time.Now()
			if tt.says[0].number != 0 {
				last = 1
				l.made(last)
			}
			for i, x := range tt.says {
				pause, news := l.broke(x.number, x.short, tt.own, begin.Add(x.at))
				if pause != x.pause || news != (x.pause > 0) {
					t.Errorf("break %d: after %v, news %v", i, pause, news)
				}
				if !news {
					continue
				}
				again := l.repair()
				if again != x.again {
					t.Errorf("break %d: again %v", i, again)
				}
				if again {
					last++
					l.made(last)
				}
			}
		})
	}

	var l linkHealth
	l.made(1)
	now := time.Now()
	l.broke(1, false, false, now)
	l.broke(1, true, false, now) // the other end knows more
	if l.repair(); l.breaks != 0 {
		t.Errorf("%d breaks counted for a shortage", l.breaks)
	}
}
