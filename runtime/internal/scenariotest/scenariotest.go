// Package scenariotest plays the scenarios that a test has in its testdata.
package scenariotest

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write what the scenarios in testdata come to now")

// Say writes a line of the result of a command.
type Say func(format string, args ...any)

// Run plays each testdata/*.txt as a subtest, and compares it with what it comes to; with -rewrite
// it writes that. A line that is not indented is a command, in which "#" begins a comment. What
// follows indented is its result. begin returns what does the commands of one file, as words.
func Run(t *testing.T, begin func(t *testing.T) (do func(command []string, say Say))) {
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
			got := play(string(want), begin(t))
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

func play(script string, do func(command []string, say Say)) string {
	var out strings.Builder
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "  ") {
			continue
		}
		fmt.Fprintln(&out, line)
		command, _, _ := strings.Cut(line, "#")
		if words := strings.Fields(command); len(words) > 0 {
			do(words, func(format string, args ...any) { fmt.Fprintf(&out, "  "+format+"\n", args...) })
		}
	}
	return out.String()
}
