package supervisortest

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/supervisor/internal/rules"
)

// recording is one line of a file of recordings.
type recording struct {
	Seed   any      `json:"seed"`
	Script []string `json:"script"`
	Expect []Step   `json:"expect"`
}

// TestGolden replays what Erlang/OTP did, step for step: as it stands; with the
// state encoded and decoded before each step; and with the operation of a race
// sent while the held attempt is still going on, not just after it.
func TestGolden(t *testing.T) {
	files := []string{"../testdata/otp.jsonl"}
	if f := os.Getenv("COPPICE_GOLDEN"); f != "" {
		files = append(files, f)
	}
	for _, file := range files {
		for _, mode := range []string{"plain", "encoded", "early"} {
			t.Run(mode, func(t *testing.T) { replay(t, file, mode) })
		}
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
		g := NewScript()
		switch mode {
		case "encoded":
			g.w.swap = func(s *rules.State) *rules.State { return roundTrip(t, s) }
		case "early":
			g.w.early = true
		}
		got, err := g.Play(strings.Join(rec.Script, "\n"))
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
	var gobbed bytes.Buffer
	if err := gob.NewEncoder(&gobbed).Encode(s); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	a, b := new(rules.State), new(rules.State)
	if err := gob.NewDecoder(&gobbed).Decode(a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, b); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if back, _ := json.Marshal(b); !bytes.Equal(back, text) {
		t.Fatalf("JSON lost something:\n%s\n%s", text, back)
	}
	if len(again) == 0 || !reflect.DeepEqual(normal(a), normal(b)) {
		t.Fatalf("gob and JSON differ:\n%s\n%s", again, text)
	}
	return b
}

// normal makes nil and empty alike: gob does not tell them apart.
func normal(s *rules.State) string {
	b, _ := json.Marshal(s)
	return strings.NewReplacer("null", "", "[]", "", "{}", "").Replace(string(b))
}
