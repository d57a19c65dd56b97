package docs_test

import (
	"os"
	"regexp"
	"testing"
)

// TestPeers: every scenario that peers.md names is there.
func TestPeers(t *testing.T) {
	doc, err := os.ReadFile("peers.md")
	if err != nil {
		t.Fatal(err)
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
