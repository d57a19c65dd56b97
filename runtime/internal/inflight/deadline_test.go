package inflight

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/scenariotest"
)

// TestDeadlines plays the scenarios: when requests are found over their deadlines.
func TestDeadlines(t *testing.T) {
	scenariotest.Run(t, func(t *testing.T) func([]string, scenariotest.Say) {
		var rule *Deadlines
		var all []Request
		var wake time.Duration
		var first time.Duration
		now, held := time.Minute, false // of the machine; a debugger holds the process
		parse := func(s string) time.Duration {
			d, err := time.ParseDuration(s)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		number := func(s string) int {
			n, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		over := map[Request]bool{}
		return func(command []string, say scenariotest.Say) {
			look := func() {
				var found []Request
				found, wake = rule.Step(now, all)
				if held {
					rule.Renew(now, found)
					return
				}
				if wake <= now {
					t.Fatalf("to look again at %v, and it is %v", wake, now)
				}
				for _, r := range found {
					if !over[r] {
						say("%v: %d is over", now-time.Minute, r.N)
					}
					over[r] = true
				}
			}
			at := func(n int) int { return slices.IndexFunc(all, func(r Request) bool { return r.N == n }) }
			switch command[0] {
			case "first": // first D grace D
				first = parse(command[1])
				rule = NewDeadlines(first, parse(command[3]))
				look()
			case "begin":
				all = append(all, Request{number(command[1]), int64(now), now + first})
			case "end":
				i := at(number(command[1]))
				all = slices.Delete(all, i, i+1)
			case "extend": // N D
				i := at(number(command[1]))
				if all[i].Due = 0; command[2] != "none" {
					all[i].Due = now + parse(command[2])
				}
			case "run":
				for end := now + parse(command[1]); now < end; {
					if now = min(end, wake); now == wake {
						look()
					}
				}
			case "held", "let":
				held = command[0] == "held"
			case "stopped": // the judge does not run
				now += parse(command[1])
				if now >= wake {
					look()
				}
			default:
				t.Fatalf("command %q", command)
			}
		}
	})
}
