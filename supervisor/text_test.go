package supervisor_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/coppice-go/coppice/supervisor"
)

// TestCut: a long text is cut between characters, says how long it was, also when it
// was wrapped and is cut again, and never grows beyond the bound.
func TestCut(t *testing.T) {
	long := strings.Repeat("A", 5<<20)
	for _, row := range []struct{ name, in, ends string }{
		{"whole", strings.Repeat("x", supervisor.MaxText), "x"},
		{"long", long, "A… (cut, 5242880 bytes)"},
		{"wrapped", "gave up: " + supervisor.Cut(long), "A… (cut, 5242880 bytes)"},
		{"a mark that is not one", strings.Repeat("… (cut, ", 1000), "… (cut, 10000 bytes)"},
		{"characters", strings.Repeat("€", 5000), "€… (cut, 15000 bytes)"},
		{"not UTF-8", strings.Repeat("\x80", 5000), "… (cut, 5000 bytes)"},
	} {
		got := supervisor.Cut(row.in)
		if !strings.HasSuffix(got, row.ends) || len(got) > supervisor.MaxText {
			t.Errorf("%s: %d bytes that end in %q", row.name, len(got), got[max(0, len(got)-40):])
		}
		if utf8.ValidString(row.in) && !utf8.ValidString(got) {
			t.Errorf("%s: not UTF-8 any more", row.name)
		}
		if again := supervisor.Cut(got); again != got {
			t.Errorf("%s: is cut again", row.name)
		}
	}
	r := supervisor.Reason{Kind: supervisor.GaveUp, Detail: "more than 1", Cause: fmt.Errorf("web/0: %w", errors.New(long))}
	if s := r.String(); len(s) > supervisor.MaxText || !strings.Contains(s, "bytes)") {
		t.Errorf("a reason of %d bytes", len(s))
	}
}
