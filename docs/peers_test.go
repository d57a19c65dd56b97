package docs_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestPeers: every test and every scenario that peers.md names is there.
func TestPeers(t *testing.T) {
	doc, err := os.ReadFile("peers.md")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("git", "grep", "-hoE", "^func Test[A-Za-z0-9_]+", "--", "..").Output()
	if err != nil {
		t.Skip("needs git: ", err)
	}
	tests := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		tests[strings.TrimPrefix(strings.TrimSpace(line), "func ")] = true
	}
	for _, m := range regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(string(doc), -1) {
		if !tests[m[1]] {
			t.Errorf("there is no %s", m[1])
		}
	}
	for _, m := range regexp.MustCompile("`pool/([a-z_]+)`").FindAllStringSubmatch(string(doc), -1) {
		if m[1] == "x" {
			continue
		}
		if _, err := os.Stat("../runtime/internal/pool/testdata/" + m[1] + ".txt"); err != nil {
			t.Errorf("no scenario %s", m[1])
		}
	}
}
