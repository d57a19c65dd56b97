package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
)

// TestCovered: go test -cover counts what ran in worker processes, and in a program
// that a test has started.
func TestCovered(t *testing.T) {
	if testing.Short() {
		t.Skip("builds this test with counters")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command")
	}
	profile := filepath.Join(t.TempDir(), "profile")
	cmd := exec.Command("go", "test", "-count=1", "-coverprofile="+profile, "-run=^(TestTree|TestProgram)$", ".")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(profile)
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, function := range []string{"serve", "replace", "main"} {
		at := regexp.MustCompile(`(?m)^func ` + function + `\(`).FindIndex(source)
		if at == nil {
			t.Fatalf("there is no %s", function)
		}
		line := 1 + len(regexp.MustCompile(`\n`).FindAllIndex(source[:at[0]], -1))
		count := regexp.MustCompile(`main\.go:` + strconv.Itoa(line) + `\.\S+ \d+ (\d+)`).FindSubmatch(b)
		if count == nil || string(count[1]) == "0" {
			t.Errorf("%s at line %d was not counted:\n%s", function, line, b)
		}
	}
}
