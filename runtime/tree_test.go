package coppice

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// TestTreeText: the text by which a child compares its tree is within its bound, passes through
// JSON unchanged, and shows a difference wherever it is.
func TestTreeText(t *testing.T) {
	many := slices.Repeat([]string{"a line of a tree"}, 100_000)
	for name, lines := range map[string][]string{
		"short":    {"a: Pool", "b: Func"},
		"no text":  {"a: Pool Env=[X=\xff\xfe]"},
		"long":     {"a: Pool Env=[" + strings.Repeat("<", 1<<20) + "]", "b: Func"},
		"all long": slices.Repeat([]string{strings.Repeat("x", 1<<10)}, 100),
		"many":     many,
	} {
		said := shortened(lines)
		b, err := json.Marshal(said)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 6*maxTreeText+len(lines)*4 && name != "many" || len(b) > 1<<19 {
			t.Errorf("%s: %d bytes", name, len(b))
		}
		var got []string
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		if d := difference(got, shortened(slices.Clone(lines))); d != "" {
			t.Errorf("%s: %.300s", name, d)
		}
		other := slices.Clone(lines)
		other[len(other)-1] = strings.TrimSuffix(other[len(other)-1], "]") + "y"
		if difference(got, shortened(other)) == "" {
			t.Errorf("%s: no difference is seen", name)
		}
	}
	if said := shortened([]string{"short"}); said[0] != "short" {
		t.Errorf("a short line is said as %q", said[0])
	}
}
