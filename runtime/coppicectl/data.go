package main

import (
	"cmp"
	"fmt"
	"time"
)

// What the endpoint answers, as docs/control.md describes it; of it what the command shows.

type about struct {
	Program    string    `json:"program"`
	PID        int       `json:"pid"`
	UID        int       `json:"uid"`
	Started    time.Time `json:"started"`
	Generation int       `json:"generation"`
	State      string    `json:"state"`
	ReadOnly   bool      `json:"read_only,omitempty"`
	LogLevel   string    `json:"log_level,omitempty"`
	Module     string    `json:"module,omitempty"`
}

type node struct {
	Name, Role, State string
	ID, PID           int
	Incarnation       int
	Generation        int
	Since             *time.Time
	Strategy          string
	Budget, Used      int
	LastExit          string `json:"last_exit"`
	Leaked            int
	Sandbox           string
	Listeners         []struct {
		Name, Addr, Policy string
		Paused, Refuses    bool
	}
	Actor *struct {
		Queue    int    `json:"queue"`
		Failures uint64 `json:"failures"`
		Kind     string `json:"kind"`
		Summary  string `json:"summary"`
	}
	Children []node
}

// worker is a row of /v1/workers.
type worker struct {
	Path, Name, Role, State string
	Since                   *time.Time
	ID, PID                 int
	Pool                    string
	Generation, Incarnation int
	LastExit                string   `json:"last_exit"`
	Memory                  *int64   `json:"memory_bytes"`
	CPU                     *float64 `json:"cpu_seconds"`
	Files                   *int64
	Limits                  string
	Open                    int    `json:"connections"`
	Claimed                 uint64 `json:"connections_claimed"`
	Unwell                  string
}

// listener is a row of /v1/listeners.
type listener struct {
	Name, Network, Address, Policy string
	Paused, Refuses                bool
	Counts                         *struct {
		Accepted, Claimed, Reset, Dropped, Errors uint64
		TurnedAway                                uint64 `json:"turned_away"`
		Waiting                                   int
	}
}

type event struct {
	Cursor, Lost                     uint64
	Time                             time.Time
	Kind, Path, Text, Name           string
	ID, PID, Incarnation, Generation int
	Slot                             *int
	Reason, Error, Why, Cause        string
	Attempt, Left, Max               int
	Delay                            float64 `json:"delay_seconds"`
	Took                             float64 `json:"took_seconds"`
	Fault                            bool
}

// subject is the name of what the event is about.
func (e event) subject() string {
	if e.Name == "" && e.Slot != nil {
		return fmt.Sprintf("%s/%d", e.Path, *e.Slot)
	}
	return cmp.Or(e.Name, e.Path)
}

type logLine struct {
	Cursor, Lost   uint64
	Time           time.Time
	Name           string
	ID, Generation int
	Stream, Text   string
}

type crash struct {
	Number                                 int
	Time                                   time.Time
	Name, Role                             string
	ID, PID, Generation, Incarnation, Slot int
	Ready                                  bool
	Uptime                                 float64 `json:"uptime_seconds"`
	Reason                                 struct{ Kind, Text string }
	Exit                                   *struct {
		PID    int
		Signal string
		Words  string
		Killed string
		OOM    string
		MaxRSS int64 `json:"max_rss_bytes"`
	}
	Lines []logLine
	Dump  string
	Held  []struct {
		Listener      string
		Open, Offered int
	}
}

// result is how a write ended.
type result struct {
	OK     bool    `json:"ok"`
	Status int     `json:"status,omitempty"`
	Error  string  `json:"error,omitempty"`
	Took   float64 `json:"took_seconds"`
}
