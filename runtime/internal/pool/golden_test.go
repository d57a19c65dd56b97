package pool

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/scenariotest"
)

// TestScenarios plays testdata/*.txt. A line that is not indented is a command:
//
//	config surge=1 unavailable=0 spares=0 draining=4 recycling=1 remove=youngest retries=0
//	start 0, cancel 0, stop-slot 0, kill-slot 0  the supervisor, for a slot
//	warm 1, ready 1, ended 1 [final] [outside] [orderly], due 1  a worker
//	roll 2 [back] [share 1], abort, scale 3 [busy 0=5,1=2], added 2 [failed], removed 2
//	at 5s                                     the time from now on
//	tick, stop, kill-all
//
// What follows indented is what is to be done about it. "#" begins a comment.
func TestScenarios(t *testing.T) {
	scenariotest.Run(t, func(t *testing.T) func(f []string, say scenariotest.Say) {
		var now Time
		m := &monitor{t: t}
		m.begin(Config{Surge: 1, Draining: 4, Recycling: 1})
		return func(f []string, say scenariotest.Say) {
			switch f[0] {
			case "config":
				m.begin(parseConfig(t, f[1:]))
				return
			case "at":
				d, err := time.ParseDuration(f[1])
				if err != nil {
					t.Fatal(err)
				}
				now = d
				return
			}
			for _, e := range m.step(now, parseEvent(t, f)) {
				say("%s", e)
			}
		}
	})
}

func parseConfig(t *testing.T, fields []string) Config {
	cfg := Config{Surge: 1, Draining: 4, Recycling: 1, Retry: time.Second, MaxRetry: time.Minute}
	for _, f := range fields {
		key, value, _ := strings.Cut(f, "=")
		n, _ := strconv.Atoi(value)
		switch key {
		case "surge":
			cfg.Surge = n
		case "unavailable":
			cfg.Unavailable = n
		case "spares":
			cfg.Spares = n
		case "draining":
			cfg.Draining = n
		case "retries":
			cfg.KillRetries = n
		case "recycling":
			cfg.Recycling = n
		case "remove":
			for _, c := range []RemovalOrder{Youngest, Oldest, LeastBusy} {
				if c.String() == value {
					cfg.RemovalOrder = c
				}
			}
		default:
			t.Fatalf("no setting %q", key)
		}
	}
	return cfg
}

func parseEvent(t *testing.T, f []string) Event {
	kinds := map[string]EventKind{
		"start": Start, "cancel": Cancel, "stop-slot": StopSlot, "kill-slot": KillSlot, "warm": Warmed, "ready": Ready,
		"ended": Ended, "roll": Roll, "abort": Abort, "scale": Scale, "added": Added, "removed": Removed,
		"due": Due, "lend": Lend, "recall": Recall, "tick": Tick, "stop": Stop, "kill-all": KillAll,
	}
	kind, ok := kinds[f[0]]
	if !ok {
		t.Fatalf("no command %q", f[0])
	}
	ev := Event{Kind: kind}
	if len(f) > 1 {
		n, err := strconv.Atoi(f[1])
		if err != nil {
			t.Fatalf("%v: %v", f, err)
		}
		ev.Slot, ev.Worker, ev.Gen, ev.Size = n, WorkerSeq(n), Generation(n), n
	}
	for i, word := range f {
		switch word {
		case "final":
			ev.Final = true
		case "brake":
			ev.Brake = true
		case "once":
			ev.Once = true
		case "orderly":
			ev.Orderly = true
		case "outside":
			ev.KilledOutside = true
		case "back":
			ev.Back = true
		case "share":
			ev.Share, _ = strconv.Atoi(f[i+1])
		case "failed":
			ev.Failed = true
		case "busy":
			ev.Busy = map[int]int{}
			for pair := range strings.SplitSeq(f[i+1], ",") {
				var slot, n int
				if _, err := fmt.Sscanf(pair, "%d=%d", &slot, &n); err != nil {
					t.Fatal(err)
				}
				ev.Busy[slot] = n
			}
		}
	}
	return ev
}

// String is an effect as the scenarios write it.
func (e Effect) String() string {
	s := e.Kind.String()
	slot := fmt.Sprintf(" slot %d", e.Slot)
	if e.Slot == Spare {
		slot = " as spare"
	} else if e.Slot == Trial {
		slot = " beside the slots"
	}
	switch e.Kind {
	case Launch, Assign:
		s += fmt.Sprintf(" w%d%s gen %d for %s", e.Worker, slot, e.Gen, e.Why)
	case Up:
		s += fmt.Sprintf("%s w%d", slot, e.Worker)
	case Fail, Down:
		s += slot
		if e.Worker != 0 {
			s += fmt.Sprintf(" because of w%d", e.Worker)
		}
	case Swap:
		s += fmt.Sprintf("%s w%d", slot, e.Worker)
		if e.Old != 0 {
			s += fmt.Sprintf(" in place of w%d", e.Old)
		}
	case Drain, ForceDrain, Kill:
		s += fmt.Sprintf(" w%d for %s", e.Worker, e.Why)
		if e.Brief {
			s += ", briefly"
		}
	case Add, Remove:
		s += slot
	case Rolled, Scaled:
		s += " " + e.Result.String()
		if e.Worker != 0 {
			s += fmt.Sprintf(": w%d in%s", e.Worker, slot)
		}
		if e.Kind == Scaled && e.Result == Failed {
			s += fmt.Sprintf(":%s, size %d", slot, e.Size)
		}
	case Hold:
		s += fmt.Sprintf("%s w%d until %v", slot, e.Worker, e.At)
	case Wake:
		s += fmt.Sprintf(" at %v", e.At)
	case Gone:
	}
	return s
}
