package docs_test

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// kubernetesFields returns the fields of Kubernetes' types, each with its own type, or "" where
// that has none, from a list that was made of k8s.io/api.
func kubernetesFields(t *testing.T) map[string]map[string]string {
	t.Helper()
	b, err := os.ReadFile("testdata/kubernetes.txt")
	if err != nil {
		t.Fatal(err)
	}
	types := make(map[string]map[string]string)
	for line := range strings.Lines(string(b)) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		types[words[0]] = make(map[string]string)
		for _, field := range words[1:] {
			name, typ, _ := strings.Cut(field, ":")
			types[words[0]][name] = typ
		}
	}
	return types
}

// A yamlField is a line of a manifest: the names of its mappings and its own, and its value.
type yamlField struct {
	path  []string
	value string
}

// manifests returns the fields of each document in the YAML blocks of a page. Of YAML it knows
// mappings and lists of the block style, which is what a manifest is written in.
func manifests(t *testing.T, page string) (docs [][]yamlField) {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	entry := regexp.MustCompile(`^( *(?:- )?)([A-Za-z]+):(?: +(.*?))?$`)
	comment := regexp.MustCompile(` +#.*$`)
	for _, block := range regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$").FindAllStringSubmatch(string(b), -1) {
		for doc := range strings.SplitSeq(block[1], "---\n") {
			var fields []yamlField
			var names []string
			var indents []int
			for line := range strings.Lines(doc) {
				line = comment.ReplaceAllString(strings.TrimRight(line, "\n"), "")
				m := entry.FindStringSubmatch(line)
				if m == nil {
					if !regexp.MustCompile(`^ *- [A-Za-z]+$`).MatchString(line) {
						t.Errorf("%s: cannot read %q", page, line)
					}
					continue
				}
				for len(indents) > 0 && indents[len(indents)-1] >= len(m[1]) {
					names, indents = names[:len(names)-1], indents[:len(indents)-1]
				}
				names, indents = append(names, m[2]), append(indents, len(m[1]))
				fields = append(fields, yamlField{append([]string(nil), names...), strings.Trim(m[3], `"`)})
			}
			docs = append(docs, fields)
		}
	}
	return docs
}

// TestManifests: each field of the manifests in containers.md is one of Kubernetes, at its place;
// and a pod has the time for its preStop and the Config.Shutdown that stands beside it.
func TestManifests(t *testing.T) {
	types := kubernetesFields(t)
	docs := manifests(t, "containers.md")
	if len(docs) < 3 {
		t.Fatalf("containers.md has %d manifests", len(docs))
	}
	for _, doc := range docs {
		seconds := map[string]int{}
		root := ""
		for _, f := range doc {
			if f.path[0] == "kind" {
				root = f.value
			}
			n, _ := strconv.Atoi(f.value)
			seconds[f.path[len(f.path)-1]] = n
		}
		for _, f := range doc {
			typ := root
			for i, name := range f.path {
				fields, known := types[typ]
				if typ == "" { // of a map: names of one's own
					break
				}
				next, ok := fields[name]
				if !known || !ok {
					t.Errorf("%s has no %s", typ, strings.Join(f.path[:i+1], "."))
					break
				}
				typ = next
			}
		}
		if root == "Deployment" {
			b, err := os.ReadFile("containers.md")
			if err != nil {
				t.Fatal(err)
			}
			m := regexp.MustCompile(`(?m)^    \tShutdown: (\d+) \* time\.Second`).FindSubmatch(b)
			if m == nil {
				t.Fatal("containers.md has no Config.Shutdown")
			}
			shutdown, _ := strconv.Atoi(string(m[1]))
			ready := slices.ContainsFunc(doc, func(f yamlField) bool {
				return slices.Contains(f.path, "readinessProbe") && slices.Contains(f.path, "httpGet")
			})
			if !ready {
				t.Error("nothing asks the workers whether they are ready")
			}
			if got := seconds["terminationGracePeriodSeconds"] - seconds["seconds"]; seconds["seconds"] == 0 || got <= shutdown {
				t.Errorf("after preStop the pod has %d s, Config.Shutdown takes %d s", got, shutdown)
			}
		}
	}
}
