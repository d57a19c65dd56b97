package signalrules

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestState: what each signal does, by what came before it. A step is "signal@ms", "up@ms" or
// "tick@ms"; without a time it comes with the one before.
func TestState(t *testing.T) {
	background := func(sig Signal) bool { return true }
	many := func(sig string, n int) string { return strings.TrimSuffix(strings.Repeat(sig+" ", n), " ") }
	for _, tt := range []struct {
		name     string
		terminal func(Signal) bool
		starting bool
		steps    string
		want     string
	}{
		{"the first ends it", nil, false, "SIGTERM@0", "stop"},
		{"Ctrl-C with a wrapper", nil, false, "SIGINT@0 SIGINT@2", "stop"},
		{"timeout(1): the child, then its group", nil, false, "SIGTERM@0 SIGTERM@2 SIGTERM@999", "stop"},
		{"one order as two signals", nil, false, "SIGINT@0 SIGTERM@100", "stop"},
		{"the second after a moment is now", nil, false, "SIGTERM@0 SIGINT@1000", "stop kill"},
		{"an echo does not put off the second", nil, false, "SIGTERM@0 SIGTERM@600 SIGTERM@1200", "stop kill"},
		{"SIGQUIT is now", nil, false, "SIGTERM@0 SIGQUIT@2", "stop stacks kill"},
		{"SIGQUIT has an echo", nil, false, "SIGQUIT@0 SIGQUIT@2 SIGTERM@4", "stacks stop"},
		{"no stacks twice in a shutdown", nil, false, many("SIGQUIT", 100), "stacks stop"},

		{"what concerns the tree waits for it", nil, false, "SIGHUP@0 SIGHUP SIGUSR1 SIGTTIN SIGTTIN SIGTTOU tick@200 up@300", "wake reload tree scale+1"},
		{"a start that hangs is shown", nil, true, "SIGUSR1@0 SIGHUP up", "tree reload"},
		{"changes in a row are one", nil, false, "up@0 SIGTTIN SIGTTIN SIGTTOU SIGTTIN@99 tick@100 SIGTTIN@101 tick@200", "wake scale+2 wake"},
		{"and none if they cancel out", nil, false, "up@0 SIGTTIN SIGTTOU tick@100", "wake"},
		{"a flood of changes is bounded", nil, false, "up@0 " + many("SIGTTIN", 5000) + " tick@100", "wake scale+16"},
		{"a job in the background may be given a worker", background, false, "up@0 SIGTTIN SIGTTIN tick@100", "wake scale+2"},
		{"it reads its terminal", background, false, "up@0 " + many("SIGTTIN", 17) + " SIGTTIN tick@100", "wake ignore SIGTTIN"},
		{"it writes to its terminal", background, false, "up@0 SIGTTOU tick@100", "ignore SIGTTOU"},
		{"it uses its terminal at its end", background, false, "up@0 SIGTERM SIGTTOU " + many("SIGTTIN", 17), "stop ignore SIGTTOU ignore SIGTTIN"},

		{"a tree that ends is not reloaded, nor scaled", nil, false, "up@0 SIGTTIN SIGTERM SIGHUP SIGTTOU tick@100 SIGUSR1", "wake stop tree"},
		{"nor one that ends before it is up", nil, false, "SIGTTIN@0 SIGHUP SIGTERM up", "wake stop"},
		{"an upgrade", nil, false, "up@0 SIGUSR2", "upgrade"},
		{"an upgrade waits for the tree", nil, false, "SIGUSR2@0 SIGUSR2 SIGHUP up", "reload upgrade"},
		{"no upgrade of what is to end", nil, false, "SIGUSR2@0 SIGTERM up SIGUSR2", "stop"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.terminal == nil {
				tt.terminal = func(Signal) bool { return false }
			}
			s := New(Config{Echo: time.Second, Terminal: tt.terminal, Starting: func() bool { return tt.starting }})
			now := time.Unix(1, 0)
			began := now
			var got []string
			for _, step := range strings.Fields(tt.steps) {
				what, at, timed := strings.Cut(step, "@")
				if timed {
					d, err := time.ParseDuration(at + "ms")
					if err != nil {
						t.Fatal(err)
					}
					now = began.Add(d)
				}
				for _, e := range s.Step(now, event(t, what)) {
					text := e.Kind.String()
					switch e.Kind {
					case Scale:
						text += fmt.Sprintf("%+d", e.By)
					case Ignore:
						text += " " + e.Signal.String()
					default:
					}
					got = append(got, text)
				}
			}
			if got := strings.Join(got, " "); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func event(t *testing.T, what string) Event {
	t.Helper()
	switch what {
	case "up":
		return Event{Kind: Up}
	case "tick":
		return Event{Kind: Tick}
	}
	for sig := range Signal(Count) {
		if sig.String() == what {
			return Event{Kind: Got, Signal: sig}
		}
	}
	t.Fatalf("no event %q", what)
	return Event{}
}

// TestNoEcho: without a time for echoes the second signal is now, and the end waits for nothing.
func TestNoEcho(t *testing.T) {
	s := New(Config{})
	now := time.Unix(1, 0)
	for _, want := range []EffectKind{Stop, Kill} {
		if got := s.Step(now, Event{Kind: Got, Signal: Terminate}); len(got) != 1 || got[0].Kind != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	if d := s.Rest(now); d != 0 {
		t.Errorf("rest %v", d)
	}
}
