package inflight

import (
	"math"
	"time"
)

// Forever is a deadline that never comes: sums with it stay within a Duration. Longer ones are not
// to be had.
const Forever = time.Duration(math.MaxInt64 / 4)

// A Request is in flight. Number and beginning together are its identity.
type Request struct {
	N     int
	Began int64         // Unix time in nanoseconds
	Due   time.Duration // by Table.Now; 0 = no deadline
}

// Deadlines is the rule of the deadlines of one worker's requests. Time in which the judge itself
// did not run, because the tree was stopped or the machine is busy, is given to the requests that
// it finds then.
type Deadlines struct {
	whole time.Duration // from the beginning of a request
	grace time.Duration // a request is over this long after it is due
	every time.Duration // between two looks, at most
	wake  time.Duration // when it was to look next
	lost  time.Duration // by which it was late, in all
	seen  map[int]sight // by number
}

// sight is a deadline of a request that was seen.
type sight struct {
	began int64
	due   time.Duration
	lost  time.Duration // before it was seen
}

// The time between two looks is a tenth of a deadline, within these bounds.
const (
	minEvery = 10 * time.Millisecond
	maxEvery = time.Second
)

// NewDeadlines returns the rule for requests that are due after first, and over after grace more.
func NewDeadlines(first, grace time.Duration) *Deadlines {
	return &Deadlines{whole: first + grace, grace: grace, every: min(max((first+grace)/10, minEvery), maxEvery), seen: map[int]sight{}}
}

// Renew gives requests that Step has just returned their whole time again, from now on: a debugger
// holds their process, which may have stood still since they began.
func (d *Deadlines) Renew(now time.Duration, over []Request) {
	for _, r := range over {
		s := d.seen[r.N]
		s.lost = r.Due + d.grace + d.lost - now - d.whole
		d.seen[r.N] = s
	}
}

// Step judges all requests in flight. It returns which are over their deadlines, each time, and
// when to look again.
func (d *Deadlines) Step(now time.Duration, all []Request) (over []Request, next time.Duration) {
	before := d.lost
	if d.wake != 0 {
		d.lost += max(0, now-d.wake)
	}
	next = now + d.every
	seen := make(map[int]sight, len(all))
	for _, r := range all {
		s, known := d.seen[r.N]
		if !known || s.began != r.Began || s.due != r.Due {
			s = sight{r.Began, r.Due, before}
		}
		seen[r.N] = s
		switch end := r.Due + d.grace + d.lost - s.lost; {
		case r.Due == 0:
		case end <= now:
			over = append(over, r)
		default:
			next = min(next, end)
		}
	}
	d.seen, d.wake = seen, next
	return over, next
}
