package supervisortest

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/supervisor"
)

// rewrite is looked up, not defined here, if the test binary has such a flag.
var rewrite = func() func() bool {
	if flag.Lookup("rewrite") == nil {
		flag.Bool("rewrite", false, "write what the scripts of supervisortest led to into their files")
	}
	return func() bool { return flag.Lookup("rewrite").Value.String() == "true" }
}()

// Golden plays the script in file on tree and compares what it led to with what
// the file says. With the flag -rewrite it writes the file instead.
func Golden(t testing.TB, tree supervisor.Spec, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	g, err := NewStage(tree)
	if err != nil {
		t.Fatal(err)
	}
	got, err := g.Replay(string(data))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	switch {
	case got == string(data):
	case rewrite():
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s differs; got:\n%s", file, got)
	}
}

// Replay plays the commands of a transcript and returns the transcript as it
// should be: comments and declarations as they stand, each step with what it
// led to. Lines that begin with a blank are outcomes, and are not looked at.
func (g *Stage) Replay(transcript string) (string, error) {
	var b strings.Builder
	for line := range strings.Lines(transcript) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case line == "" || line[0] == '#':
			b.WriteString(line + "\n")
			continue
		case line[0] == ' ':
			continue
		}
		command, _, _ := strings.Cut(line, " -> ")
		step, isStep, err := g.Do(command)
		if err != nil {
			return "", err
		}
		if isStep {
			b.WriteString(step.String())
		} else {
			b.WriteString(command + "\n")
		}
	}
	return b.String(), nil
}
