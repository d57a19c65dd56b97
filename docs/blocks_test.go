package docs_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestCodeBlocks: each Go block of these pages, up to a heading if there is one, stands, but for
// its indentation, in a file of the directory, whose tests compile and run it. A line of one "…"
// stands for lines left out.
func TestCodeBlocks(t *testing.T) {
	block := regexp.MustCompile("(?ms)^```go\n(.*?)^```$")
	for page, dir := range map[string]string{
		"guide.md":              "../examples/guide/*",
		"testing.md":            "../examples/tested",
		"porting.md":            "../examples/porting/*",
		"node-cluster.md":       "../examples/guide/cluster",
		"hosts.md\n## Security": "../examples/hosts",
	} {
		page, end, _ := strings.Cut(page, "\n")
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatal(dir, err)
		}
		var code []string
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			code = append(code, unindented(string(b)))
		}
		text := string(b)
		if end != "" {
			text, _, _ = strings.Cut(text, end)
		}
		blocks := block.FindAllStringSubmatch(text, -1)
		if len(blocks) == 0 {
			t.Errorf("%s has no Go block", page)
		}
		for _, m := range blocks {
			found := false
			for _, c := range code {
				found = found || hasParts(c, strings.Split(unindented(m[1]), "\n…\n"))
			}
			if !found {
				t.Errorf("%s: no file of %s has\n%s", page, dir, m[1])
			}
		}
	}
}

// hasParts reports whether text has the parts, whole lines each, in this order.
func hasParts(text string, parts []string) bool {
	for _, part := range parts {
		at := strings.Index("\n"+text, "\n"+strings.Trim(part, "\n")+"\n")
		if at < 0 {
			return false
		}
		text = text[at:]
	}
	return true
}

// unindented returns text without the white space at both ends of each line.
func unindented(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	return strings.Join(lines, "\n")
}

// TestProgramOfReadme: the README's program compiles.
func TestProgramOfReadme(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command")
	}
	b, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?ms)^```go\n(package main\n.*?)^```$").FindSubmatch(b)
	if m == nil {
		t.Fatal("the README has no program")
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "main.go")
	overlay := filepath.Join(filepath.Dir(program), "overlay.json")
	names, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(here, "testdata", "main.go"): program}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{program: m[1], overlay: names} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "go", "vet", "-overlay", overlay, "./testdata").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
