package quarantine

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
//	config deaths=3 keys=2 window=1m expiry=2m interval=1s max=4s
//	at 5s                  the time from now on
//	call a b               each a call of its key: what becomes of it
//	answered a, died a b, dropped a, release a, list
//
// What follows indented is the result. "#" begins a comment.
func TestScenarios(t *testing.T) {
	scenariotest.Run(t, func(t *testing.T) func(f []string, say scenariotest.Say) {
		s, now, deaths := New(Config{}), Time(0), 0
		return func(f []string, say scenariotest.Say) {
			switch f[0] {
			case "config":
				s = New(parseConfig(t, f[1:]))
			case "at":
				now = duration(t, f[1])
			case "call":
				for _, key := range f[1:] {
					say("%s %s", s.Admit(now, key), key)
				}
			case "answered":
				for _, key := range s.Answered(now, f[1]) {
					say("quarantined %s", key)
				}
			case "died":
				deaths++
				for _, key := range s.Died(now, fmt.Sprintf("death %d", deaths), f[1:]...) {
					say("quarantined %s", key)
				}
			case "dropped":
				s.Dropped(f[1])
			case "release":
				say("%v", s.Release(now, f[1]))
			case "list":
				for _, e := range s.List(now) {
					state := fmt.Sprintf("since %v, probe from %v", e.Since, e.Next)
					if e.Released {
						state = "released"
					}
					say("%s: %s; %d deaths, last at %v: %s; %d refused, %d probes", e.Key, state, e.Deaths, e.Last, e.Reason, e.Refused, e.Probes)
				}
			default:
				t.Fatalf("no command %q", f)
			}
		}
	})
}

func parseConfig(t *testing.T, fields []string) (cfg Config) {
	t.Helper()
	for _, f := range fields {
		key, value, _ := strings.Cut(f, "=")
		switch key {
		case "deaths", "keys":
			n, err := strconv.Atoi(value)
			if err != nil {
				t.Fatal(err)
			}
			*map[string]*int{"deaths": &cfg.Deaths, "keys": &cfg.Keys}[key] = n
		default:
			*map[string]*time.Duration{
				"window": &cfg.Window, "expiry": &cfg.Expiry, "interval": &cfg.Interval, "max": &cfg.MaxInterval,
			}[key] = duration(t, value)
		}
	}
	return cfg
}

func duration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
