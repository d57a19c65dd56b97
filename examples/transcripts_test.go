package examples

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var rewrite = flag.Bool("transcripts", false, "run the commands of the READMEs' transcripts, and write what they print there")

var (
	// A transcript is what stands in a README below a command that leaves standard error out.
	transcript = regexp.MustCompile(`(?m)^    \$ (go .* 2>/dev/null)\n((?:    [^$\n].*\n)+)`)
	chaos      = regexp.MustCompile(`flag\.Bool\("chaos"`)
	numbers    = regexp.MustCompile(`\d+`)
)

// TestTranscripts: each README of a program that can harm itself has the transcript of that. With
// -transcripts those of all READMEs are made again, where more than numbers differ; on a machine
// with little else to do, since some programs look at the time:
//
//	go test ./examples -run TestTranscripts -transcripts
//	go test ./examples -run TestTranscripts/chat -transcripts
func TestTranscripts(t *testing.T) {
	readmes, err := filepath.Glob("*/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range readmes {
		dir := filepath.Dir(path)
		t.Run(dir, func(t *testing.T) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text, harmed := string(b), false
			for _, m := range transcript.FindAllStringSubmatch(text, -1) {
				command, old := m[1], m[2]
				if !strings.Contains(command, "examples/"+dir) {
					t.Errorf("%q runs another example", command)
				}
				harmed = harmed || strings.Contains(command, " -chaos")
				if *rewrite {
					if made := run(t, command); numbers.ReplaceAllString(made, "") != numbers.ReplaceAllString(old, "") {
						text = strings.Replace(text, old, made, 1)
					}
				}
			}
			if text != string(b) {
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if canHarm(t, dir) && !harmed {
				t.Error("no transcript of -chaos")
			}
		})
	}
}

// TestIndex: README.md names each example.
func TestIndex(t *testing.T) {
	index, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	readmes, err := filepath.Glob("*/README.md")
	if err != nil || len(readmes) == 0 {
		t.Fatal(len(readmes), err)
	}
	for _, path := range append(readmes, "guide/README.md") { // which has a page in docs
		if dir := filepath.Dir(path); !strings.Contains(string(index), "]("+dir+") |") {
			t.Errorf("%s is not in README.md", dir)
		}
	}
}

// run returns what a command prints, as a block of a README.
func run(t *testing.T, command string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", command)
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return "    " + strings.ReplaceAll(strings.TrimRight(string(out), "\n"), "\n", "\n    ") + "\n"
}

// canHarm reports whether the program of a directory has -chaos.
func canHarm(t *testing.T, dir string) bool {
	t.Helper()
	sources, err := filepath.Glob(dir + "/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range sources {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if chaos.Match(b) {
			return true
		}
	}
	return false
}
