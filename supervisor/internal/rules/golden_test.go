package rules_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/supervisor/internal/rules"
)

// recording is one line of a file of recordings.
type recording struct {
	Seed   any          `json:"seed"`
	Script []string     `json:"script"`
	Expect []stepResult `json:"expect"`
}

// TestGolden replays what Erlang/OTP did, step for step: as it stands; with the
// state encoded and decoded before each step; and with the operation of a race
// sent while the held attempt is still going on, not just after it.
func TestGolden(t *testing.T) {
	files := []string{"../../testdata/otp.jsonl"}
	if f := os.Getenv("COPPICE_GOLDEN"); f != "" {
		files = append(files, f)
	}
	for _, file := range files {
		for _, mode := range []string{"plain", "encoded", "early"} {
			t.Run(mode, func(t *testing.T) { replay(t, file, mode) })
		}
	}
}

// TestGoldenMore replays recordings made later: bursts and races in groups,
// nested and dynamic supervisors, auto-shutdown, and a shutdown time of 0.
// Supervisors that are killed are not among them: their children die in the
// order of Erlang's tree of links, which is not promised.
func TestGoldenMore(t *testing.T) {
	for _, mode := range []string{"encoded", "early"} {
		t.Run(mode, func(t *testing.T) { replay(t, "../../testdata/more.jsonl", mode) })
	}
}

func replay(t *testing.T, file, mode string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	scenarios, steps, differences := 0, 0, 0
	for line := range bytes.Lines(data) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var rec recording
		if err := json.Unmarshal(line, &rec); err != nil {
			t.Fatal(err)
		}
		scenarios++
		g := newStage()
		switch mode {
		case "encoded":
			g.sim.swap = func(s *rules.State) *rules.State { return roundTrip(t, s) }
		case "early":
			g.sim.early = true
		}
		got, err := g.play(strings.Join(rec.Script, "\n"))
		if err != nil {
			t.Fatalf("seed %v: %v", rec.Seed, err)
		}
		if len(got) != len(rec.Expect) {
			t.Fatalf("seed %v: %d steps, want %d", rec.Seed, len(got), len(rec.Expect))
		}
		first := true
		for i, want := range rec.Expect {
			steps++
			want.Line = got[i].Line
			if fmt.Sprint(got[i], got[i].Cnt) != fmt.Sprint(want, want.Cnt) {
				if differences++; first && differences <= 20 {
					t.Errorf("%s, seed %v, step %d:\n got %v%v\nwant %v%v", file, rec.Seed, i+1, got[i], got[i].Cnt, want, want.Cnt)
				}
				first = false
			}
		}
	}
	summary := fmt.Sprintf("%d scenarios, %d steps, %d differences", scenarios, steps, differences)
	if mode == "plain" {
		fmt.Println(summary)
	} else {
		t.Log(summary)
	}
}

// roundTrip encodes and decodes a state, and checks that nothing was lost.
func roundTrip(t *testing.T, s *rules.State) *rules.State {
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	back := new(rules.State)
	if err := json.Unmarshal(text, back); err != nil {
		t.Fatal(err)
	}
	if again, _ := json.Marshal(back); !bytes.Equal(again, text) {
		t.Fatalf("encoding lost something:\n%s\n%s", text, again)
	}
	return back
}

// TestStateIsPlainData: any encoder will do.
func TestStateIsPlainData(t *testing.T) {
	g := newStage()
	if _, err := g.play("strategy rest_for_one 3 5\nchild a permanent 5000 worker\nsup s one_for_one 1 5 never permanent infinity\nstart\ncrash a"); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := gob.NewEncoder(&buf).Encode(g.sim.rootUp.state); err != nil {
		t.Fatal(err)
	}
	back := new(rules.State)
	if err := gob.NewDecoder(&buf).Decode(back); err != nil {
		t.Fatal(err)
	}
	g.sim.rootUp.state = back
	if got := g.sim.rootUp.render(true); got != "a#2 s#2[]" {
		t.Errorf("children %q", got)
	}
	if step, _, err := g.do("crash a"); err != nil || step.Ch != "a#3 s#3[]" {
		t.Errorf("%v, %v", step, err)
	}
}
