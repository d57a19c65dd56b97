package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestArchitecture: each file and each directory that architecture.md names exists, and each test
// of the pure machines that it lists is in its place.
func TestArchitecture(t *testing.T) {
	b, err := os.ReadFile("architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	path := regexp.MustCompile("`((?:actors|fdipc|netactor|runtime|supervisor|tracing)/[a-zA-Z0-9_/.]+)`")
	found := path.FindAllStringSubmatch(string(b), -1)
	if len(found) == 0 {
		t.Error("no files found")
	}
	for _, m := range found {
		if _, err := os.Stat(filepath.Join("..", filepath.FromSlash(m[1]))); err != nil {
			t.Errorf("there is no %s", m[1])
		}
	}
}
