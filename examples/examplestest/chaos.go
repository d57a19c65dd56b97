//go:build linux

package examplestest

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

var (
	transcript = regexp.MustCompile(`(?m)^    \$ go .* -chaos 2>/dev/null\n((?:    [^$\n].*\n)+)`)
	numbers    = regexp.MustCompile(`\d+`)
)

// Chaos runs this program with -chaos and args, as [runtimetest.Start] does. It fails the test if
// the program does not end with code 0, as it does if what it promises did not hold, or if the
// transcript in README.md is of another program: each of its lines must be printed, in order, but
// for numbers and what stands behind a colon. It returns what was printed.
func Chaos(t *testing.T, args ...string) []string {
	t.Helper()
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	m := transcript.FindSubmatch(b)
	if m == nil {
		t.Fatal("README.md has no transcript")
	}
	p := runtimetest.Start(t, nil, append([]string{"-chaos"}, args...)...)
	<-p.Ended() // it has a patience of its own
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	printed := p.Lines()
	rest := printed
	for want := range strings.Lines(string(m[1])) {
		want = kind(strings.TrimPrefix(strings.TrimSuffix(want, "\n"), "    "))
		for len(rest) > 0 && kind(rest[0]) != want {
			rest = rest[1:]
		}
		if len(rest) == 0 {
			t.Fatalf("README.md has a line %q that is not printed there", want)
		}
		rest = rest[1:]
	}
	return printed
}

// kind returns a line without numbers, up to a colon.
func kind(line string) string {
	line, _, _ = strings.Cut(line, ": ")
	return strings.TrimSpace(numbers.ReplaceAllString(line, "0"))
}
