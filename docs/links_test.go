package docs_test

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDecisions: each decision has a number of its own, in its file name and in its title, the four
// parts, and a line of the index. Each number that a comment or a page names is one of these.
func TestDecisions(t *testing.T) {
	decisions, err := os.ReadDir("adr")
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`^(\d{4})-[a-z0-9-]+\.md$`)
	numbers := make(map[string]string)
	index, err := os.ReadFile(filepath.Join("adr", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range decisions {
		if f.Name() == "README.md" {
			continue
		}
		m := name.FindStringSubmatch(f.Name())
		if m == nil {
			t.Errorf("adr/%s: want NNNN-title.md", f.Name())
			continue
		}
		if other, taken := numbers[m[1]]; taken {
			t.Errorf("adr/%s: %s has the number %s too", f.Name(), other, m[1])
		}
		numbers[m[1]] = f.Name()
		b, err := os.ReadFile(filepath.Join("adr", f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"# " + m[1] + ". ", "\n## Context\n", "\n## Decision\n", "\n## Alternatives", "\n## Consequences\n"} {
			if !strings.Contains("\n"+string(b), want) {
				t.Errorf("adr/%s lacks %q", f.Name(), strings.TrimSpace(want))
			}
		}
		title, _, _ := strings.Cut(strings.TrimPrefix(string(b), "# "+m[1]+". "), "\n")
		if row := "| [" + m[1] + "](" + f.Name() + ") | " + title + " |"; !strings.Contains(string(index), row) {
			t.Errorf("adr/README.md lacks %s", row)
		}
	}
	named := regexp.MustCompile(`\bADRs?(?:\s|//)+(\d{4})\b`)
	for _, ext := range []string{".go", ".md"} {
		for name, text := range files(t, ext) {
			for _, m := range named.FindAllStringSubmatch(text, -1) {
				if numbers[m[1]] == "" {
					t.Errorf("%s names ADR %s, which is no file", name, m[1])
				}
			}
		}
	}
}

// TestLinks: what a document links to within the repository exists, the heading too if the link
// names one.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]*)(#[^)\s]+)?[^)]*\)`)
	code := regexp.MustCompile("(?s)```.*?```")
	documents := files(t, ".md")
	for name, text := range documents {
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(text, ""), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			to := name
			if m[1] != "" {
				to = path.Join(path.Dir(name), m[1])
			}
			if _, err := os.Stat(filepath.Join("..", filepath.FromSlash(to))); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			}
			if page, ok := documents[to]; ok && m[2] != "" && !slices.Contains(anchors(page), m[2][1:]) {
				t.Errorf("%s links to %s%s: no such heading", name, m[1], m[2])
			}
		}
	}
}

// anchors returns what code hosts name the headings of a page by in a link.
func anchors(page string) (names []string) {
	heading := regexp.MustCompile(`(?m)^#+ (.+)$`)
	marks := regexp.MustCompile(`[^\pL\pN _-]`)
	for _, m := range heading.FindAllStringSubmatch(page, -1) {
		names = append(names, strings.ReplaceAll(marks.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return names
}

// TestWalls: no page has more than 25 lines of text, of 100 columns, without a heading, a table, a
// list, a picture or code in between.
func TestWalls(t *testing.T) {
	begins := regexp.MustCompile(`^(#|\||    |!\[|- |\d+\. |\*\*)`)
	for name, text := range files(t, ".md") {
		if path.Dir(name) != "docs" && name != "README.md" {
			continue
		}
		lines, code := 0, false
		for i, l := range strings.Split(text, "\n") {
			if fence := strings.HasPrefix(l, "```"); fence || code || begins.MatchString(l) {
				lines, code = 0, code != fence
			}
			if !code {
				lines += (len(l) + 99) / 100
			}
			if lines > 25 {
				t.Errorf("%s:%d: a wall of text", name, i+1)
				lines = 0
			}
		}
	}
}
