package docs_test

import (
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	testName = regexp.MustCompile(`\bTest[A-Z]\w*`)
	numbered = regexp.MustCompile(`\d\d$`)
)

// TestPromises: each row of promises.md, and of the README's table, names at least one test, each
// behind its package, and the package has it.
func TestPromises(t *testing.T) {
	tests := declaredTests(t)
	for _, doc := range []string{"promises.md", "../README.md"} {
		b, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		rows := 0
		for line := range strings.Lines(string(b)) {
			cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
			if len(cells) != 2 || !testName.MatchString(line) {
				continue
			}
			rows++
			pkg := ""
			for word := range strings.FieldsSeq(strings.ReplaceAll(cells[1], ",", " ")) {
				switch name := strings.Trim(word, "`"); {
				case name != word:
					pkg = name
				case !tests[pkg][name]:
					t.Errorf("%s: %s has no %s", filepath.Base(doc), pkg, name)
				}
			}
		}
		if rows == 0 {
			t.Errorf("%s: no rows found", filepath.Base(doc))
		}
	}
}

// TestNamesOfTests: each test that a document names exists in some package. TestTrap01 stands for
// the test that begins so.
func TestNamesOfTests(t *testing.T) {
	all := make(map[string]bool)
	for _, tests := range declaredTests(t) {
		for name := range tests {
			all[name] = true
		}
	}
	for name, text := range files(t, ".md") {
		for _, test := range testName.FindAllString(text, -1) {
			if !all[test] && !slices.ContainsFunc(slices.Collect(maps.Keys(all)), func(name string) bool {
				return numbered.MatchString(test) && strings.HasPrefix(name, test)
			}) {
				t.Errorf("%s: there is no %s", name, test)
			}
		}
	}
}

// declaredTests returns the tests of each directory of the repository, the modules in it included.
func declaredTests(t *testing.T) map[string]map[string]bool {
	t.Helper()
	declaration := regexp.MustCompile(`(?m)^func (Test[A-Z]\w*)[(\[]`)
	tests := make(map[string]map[string]bool)
	for name, text := range files(t, ".go") {
		dir := path.Dir(name)
		for _, m := range declaration.FindAllStringSubmatch(text, -1) {
			if tests[dir] == nil {
				tests[dir] = make(map[string]bool)
			}
			tests[dir][m[1]] = true
		}
	}
	return tests
}

// files returns the text of each file of the repository whose name ends in ext, the modules in it
// included, by its path.
func files(t *testing.T, ext string) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == ".git" || d.Name() == "testdata" {
			return filepath.SkipDir
		}
		if filepath.Ext(name) != ext {
			return nil
		}
		b, err := os.ReadFile(name)
		texts[filepath.ToSlash(strings.TrimPrefix(name, ".."+string(filepath.Separator)))] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

// TestNamesOfAPI: each exported name that a document outside adr spells exists. It is spelled with
// its package, as coppice.Pool, or in code as a member of its type, as Pool.Size.
func TestNamesOfAPI(t *testing.T) {
	names, types, members := make(map[string]bool), make(map[string]bool), make(map[string]bool)
	declared := regexp.MustCompile(`^pkg (\S+), (?:func|type|const|var) ([A-Z]\w*)`)
	member := regexp.MustCompile(`^pkg \S+, (?:type (\w+)\S* (?:struct|interface), (?:embedded \S*?)?(\w+)|method \(\*?(\w+)\S*\) (\w+))`)
	for _, l := range api(t) {
		if m := declared.FindStringSubmatch(l); m != nil {
			pkg := filepath.Base(m[1])
			if pkg == "runtime" {
				pkg = "coppice"
			}
			names[pkg+"."+m[2]] = true
		}
		if m := member.FindStringSubmatch(l); m != nil {
			types[m[1]+m[3]] = true
			members[m[1]+m[3]+"."+m[2]+m[4]] = true
		}
	}
	name := regexp.MustCompile(`\b(coppice|supervisor|actors|fdipc|netactor|tracing|otlp)\.([A-Z]\w*)`)
	ofType := regexp.MustCompile("[`(*]([A-Z]\\w*)\\.([A-Z]\\w*)[`()]")
	docs, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range append(docs, "../README.md") {
		b, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range name.FindAllStringSubmatch(string(b), -1) {
			if !names[m[0]] && !testName.MatchString(m[2]) {
				t.Errorf("%s: there is no %s", doc, m[0])
			}
		}
		for _, m := range ofType.FindAllStringSubmatch(string(b), -1) {
			if types[m[1]] && !members[m[1]+"."+m[2]] {
				t.Errorf("%s: there is no %s.%s", doc, m[1], m[2])
			}
		}
	}
}
