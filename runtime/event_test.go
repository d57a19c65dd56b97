package coppice

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/coppice-go/coppice/supervisor"
)

// TestEventKinds: the kinds that supervisors have are those of package supervisor.
func TestEventKinds(t *testing.T) {
	for k := supervisor.ChildStarted; k <= supervisor.SupervisorPersists; k++ {
		if EventKind(k).String() != k.String() {
			t.Errorf("kind %d is %q here, %q there", k, EventKind(k), k)
		}
	}
	if len(eventKinds) != int(KeyQuarantined)+1 {
		t.Errorf("%d names", len(eventKinds))
	}
}

func TestEventText(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	web := Identity{Name: "web/0", ID: 7, PID: 4711, Incarnation: 2, Generation: 1}
	for _, tt := range []struct {
		ev         Event
		text, json string
	}{
		{
			Event{Cursor: 9, Lost: 2, Time: at, Kind: ChildExited, Path: "web/0", Identity: web, Reason: supervisor.Reason{Kind: supervisor.Error, Cause: errors.New("exit code 2")}, Took: 1500 * time.Millisecond, Fault: true},
			"web/0#7 exited: error: exit code 2",
			`{"cursor":9,"lost":2,"time":"2026-01-02T03:04:05.006Z","kind":"exited","path":"web/0","text":"web/0#7 exited: error: exit code 2","id":7,"pid":4711,"incarnation":2,"generation":1,"name":"web/0","reason":"error: exit code 2","took_seconds":1.5,"fault":true}`,
		},
		{
			Event{Time: at, Kind: ChildRestarting, Path: "web/0", Attempt: 3, Left: 0, Max: 2, Delay: time.Second, Cause: "web/1"},
			"web/0 restarting: attempt 3, 0 of 2 left, in 1s (because of web/1)",
			`{"cursor":0,"time":"2026-01-02T03:04:05.006Z","kind":"restarting","path":"web/0","text":"web/0 restarting: attempt 3, 0 of 2 left, in 1s (because of web/1)","cause":"web/1","attempt":3,"left":0,"max":2,"delay_seconds":1}`,
		},
		{
			Event{Time: at, Kind: WorkerStarting, Path: "web", Identity: Identity{Slot: 0, Generation: 2}, Why: "reload"},
			"web/0 starting (reload), generation 2",
			`{"cursor":0,"time":"2026-01-02T03:04:05.006Z","kind":"starting","path":"web","text":"web/0 starting (reload), generation 2","generation":2,"slot":0,"why":"reload"}`,
		},
		{
			Event{Time: at, Kind: TreeReloaded, Identity: Identity{Generation: 2}, Took: 2 * time.Second, Err: errors.New("no such file"), Fault: true},
			"master tree reloaded, generation 2, in 2s: no such file",
			`{"cursor":0,"time":"2026-01-02T03:04:05.006Z","kind":"tree reloaded","path":"","text":"master tree reloaded, generation 2, in 2s: no such file","generation":2,"error":"no such file","took_seconds":2,"fault":true}`,
		},
	} {
		if got := tt.ev.String(); got != tt.text {
			t.Errorf("got  %s\nwant %s", got, tt.text)
		}
		if b, err := json.Marshal(tt.ev); err != nil || string(b) != tt.json {
			t.Errorf("got  %s, %v\nwant %s", b, err, tt.json)
		}
	}
}

// TestEventKeepsText: an event is kept for long, and what was given to panic may be large.
func TestEventKeepsText(t *testing.T) {
	large := [2000]int{}
	ev := eventOf(supervisor.Event{Reason: supervisor.Reason{Kind: supervisor.Panic, Value: &large}})
	if text, is := ev.Reason.Value.(string); !is || len(text) > supervisor.MaxText || ev.Reason.String() == "" {
		t.Errorf("it keeps %T", ev.Reason.Value)
	}
}

// TestEventCause: a cause is another child; what restarts because of itself has none.
func TestEventCause(t *testing.T) {
	for cause, want := range map[string]string{"master/web/0": "", "master/web/1": "web/1"} {
		if ev := eventOf(supervisor.Event{Kind: supervisor.ChildStarted, Path: "master/web/0", Cause: cause}); ev.Cause != want {
			t.Errorf("because of %s: %s", cause, ev)
		}
	}
}
