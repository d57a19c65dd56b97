package quarantine

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "write what the scenarios in testdata come to now")

// TestScenarios plays testdata/*.txt. A line that is not indented is a command:
//
//	config deaths=3 keys=2 window=1m expiry=2m interval=1s max=4s
//	at 5s                  the time from now on
//	call a b               each a call of its key: what becomes of it
//	answered a, died a b, dropped a, release a, forget a, list
//
// What follows indented is the result. "#" begins a comment.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want) {
				t.Errorf("%s differs; -rewrite, and read the difference. It comes to:\n%s", file, got)
			}
		})
	}
}

func play(t *testing.T, script string) string {
	t.Helper()
	var out strings.Builder
	s, now, deaths := New(Config{}), Time(0), 0
	for lines := bufio.NewScanner(strings.NewReader(script)); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "  ") {
			continue
		}
		fmt.Fprintln(&out, line)
		cmd, _, _ := strings.Cut(line, "#")
		f := strings.Fields(cmd)
		if len(f) == 0 {
			continue
		}
		say := func(format string, args ...any) { fmt.Fprintf(&out, "  "+format+"\n", args...) }
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
		case "forget":
			say("%v", s.Forget(now, f[1]))
		case "list":
			for _, e := range s.List(now) {
				state := fmt.Sprintf("since %v, probe from %v", e.Since, e.Next)
				if e.Released {
					state = "released"
				}
				say("%s: %s; %d deaths, last at %v: %s; %d refused, %d probes", e.Key, state, e.Deaths, e.Last, e.Reason, e.Refused, e.Probes)
			}
		default:
			t.Fatalf("no command %q", line)
		}
	}
	return out.String()
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
