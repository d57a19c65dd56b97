package actors

import (
	"fmt"
	"time"
)

// ActorInfo is what is counted of an actor. The tree shows it of its actors, and [System.Actors] of
// all in a process.
type ActorInfo struct {
	PID       string        `json:"pid"`                // address/id
	Queue     int           `json:"queue"`              // user messages that wait
	Oldest    time.Duration `json:"oldest,omitempty"`   // for how long the first of them has, give or take 15 others
	Processed uint64        `json:"processed"`          // user messages that this incarnation took from the queue
	Failures  uint64        `json:"failures,omitempty"` // incarnations of this child that ended abnormally
	Summary                 // of a [Summarizer]
}

// String is one line.
func (i ActorInfo) String() string {
	s := fmt.Sprintf("%d handled, %d waiting", i.Processed, i.Queue)
	if i.Oldest > 0 {
		s += fmt.Sprintf(" up to %v", i.Oldest.Round(time.Millisecond))
	}
	if i.Failures > 0 {
		s += fmt.Sprintf(", %d failures", i.Failures)
	}
	if i.Text != "" {
		s += "; " + i.Summary.String()
	}
	return s
}

func (inc *incarnation) info() ActorInfo {
	info := ActorInfo{PID: pidString(inc.pid)}
	m := inc.box
	m.mu.Lock()
	info.Queue, info.Oldest, info.Processed = m.user.Len(), m.user.Age(), m.user.Taken()-m.dropped
	m.mu.Unlock()
	if inc.failures != nil {
		info.Failures = inc.failures.Load()
	}
	if s := inc.summarizer.Load(); s != nil {
		info.Summary = summaryOf(*s)
	}
	return info
}

func summaryOf(s Summarizer) (sum Summary) {
	defer func() {
		if v := recover(); v != nil {
			sum = Summary{Text: fmt.Sprintf("Summary panics: %v", v)}
		}
	}()
	return s.Summary()
}
