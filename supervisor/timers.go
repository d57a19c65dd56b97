package supervisor

import (
	"container/heap"
	"time"

	"github.com/coppice-go/coppice/supervisor/internal/rules"
)

// Clock is the time that a supervisor uses. The default is the system's.
type Clock interface {
	Now() time.Time // must not run backwards
	// AfterFunc calls f on a new goroutine after d, unless stopped before.
	AfterFunc(d time.Duration, f func()) interface{ Stop() bool }
}

// sinceBoot returns the time of a clock that goes on over an exec: CLOCK_MONOTONIC for the system's
// Clock, else the Clock's own.
func (cfg *Config) sinceBoot() time.Duration {
	if _, system := cfg.Clock.(systemClock); system {
		return monotonic()
	}
	return time.Duration(cfg.Clock.Now().UnixNano())
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }
func (systemClock) AfterFunc(d time.Duration, f func()) interface{ Stop() bool } {
	return time.AfterFunc(d, f)
}

// timers is the heap of the children's timers, at most one each. The clock has one timer,
// for the top of the heap.
type timers []*childRecord

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].due < t[j].due }
func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].timerIndex, t[j].timerIndex = i, j
}

// Push is heap.Interface's.
func (t *timers) Push(x any) {
	child := x.(*childRecord)
	child.timerIndex = len(*t)
	*t = append(*t, child)
}

// Pop is heap.Interface's.
func (t *timers) Pop() any {
	old := *t
	child := old[len(old)-1]
	old[len(old)-1] = nil
	*t = old[:len(old)-1]
	child.timerIndex = -1
	return child
}

// set arms, moves or clears (at zero) a child's timer.
func (t *timers) set(child *childRecord, at rules.Time) {
	child.due = at
	switch {
	case at == 0 && child.timerIndex >= 0:
		heap.Remove(t, child.timerIndex)
	case at == 0:
	case child.timerIndex >= 0:
		heap.Fix(t, child.timerIndex)
	default:
		heap.Push(t, child)
	}
}

// pop removes and returns a child whose timer is due at now, or nil.
func (t *timers) pop(now rules.Time) *childRecord {
	if len(*t) == 0 || (*t)[0].due > now {
		return nil
	}
	return heap.Pop(t).(*childRecord)
}
