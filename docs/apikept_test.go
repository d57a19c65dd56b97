package docs_test

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestAPIKept: a name of the last release's api.txt is in that of now, or the changelog has it
// under what the next version removes. That a name keeps its type is for the reader of the
// difference.
func TestAPIKept(t *testing.T) {
	tag, before := lastRelease(t, "..")
	changes, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	now, err := os.ReadFile("api.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range vanished(before, string(now), string(changes)) {
		t.Errorf("%s has %s, which is gone, and CHANGELOG.md does not say so under Removed", tag, name)
	}
}

// lastRelease returns the latest tag of a version before HEAD, and its api.txt. It skips the test
// where there is none, or no git.
func lastRelease(t *testing.T, dir string) (tag, api string) {
	t.Helper()
	git := func(args ...string) string {
		out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir}, args...)...).Output()
		if err != nil {
			t.Skipf("no release to compare with: git %s: %v", strings.Join(args, " "), err)
		}
		return strings.TrimSpace(string(out))
	}
	tag = git("describe", "--tags", "--abbrev=0", "--match", "v[0-9]*")
	return tag, git("show", tag+":docs/api.txt")
}

// vanished returns the names of the API before that are neither in that of now nor, in backquotes,
// in a list that begins with "Removed:" in the topmost section of the changelog. Members of a type
// that is gone do not count apart.
func vanished(before, now, changes string) (names []string) {
	section := regexp.MustCompile(`(?ms)^## .*?(?:^## |\z)`).FindString(changes)
	removed := regexp.MustCompile(`(?ms)^Removed:\n.*?(?:^\w[^\n]*:\n|\z)`).FindString(section)
	there := apiNames(now)
	for _, name := range apiNames(before) {
		parent := name[:strings.LastIndexByte(name, '.')]
		if !slices.Contains(there, name) && !slices.Contains(names, parent) && !strings.Contains(removed, "`"+name+"`") &&
			!strings.Contains(removed, "`"+parent+"`") {
			names = append(names, name)
		}
	}
	return names
}

// apiNames returns the sorted names in an api.txt, as coppice.Start and coppice.Pool.Size.
func apiNames(api string) (names []string) {
	line := regexp.MustCompile(`^pkg (\S+), (?:(?:func|const|var) (\w+)|method \(\*?(\w+)[^)]*\) (\w+)|` +
		`type (\w+)(?:\[[^\]]*\])?(?: (?:struct|interface), (?:embedded \S*?)?(\w+))?)`)
	for l := range strings.Lines(api) {
		m := line.FindStringSubmatch(l)
		if m == nil {
			continue
		}
		pkg := path.Base(m[1])
		if pkg == "runtime" {
			pkg = "coppice"
		}
		name := pkg + "." + m[2] + m[3] + m[5]
		if member := m[4] + m[6]; member != "" {
			name += "." + member
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// TestVanished: what is gone is found, whatever kind of name it is, unless the changelog has it.
func TestVanished(t *testing.T) {
	const before = `pkg fdipc, func Dial(addr string, n int) (*Conn, error)
pkg fdipc, method (*Conn) Send(ctx context.Context, f *Frame) error
pkg fdipc, method (Call[Q, A]) Wait(ctx context.Context, q Q) (A, error)
pkg fdipc, type Call[Q any, A any] struct
pkg fdipc, type Call[Q any, A any] struct, About Q
pkg fdipc, type Conn struct
pkg runtime, const None = -1
pkg runtime, type Heartbeat struct
pkg runtime, type Heartbeat struct, Every time.Duration
pkg runtime, type Pool struct
pkg runtime, type Pool struct, Size int
pkg runtime, type WorkerFunc func(ctx context.Context, w *Worker) error
`
	without := func(names ...string) (now string) {
		for l := range strings.Lines(before) {
			if !slices.ContainsFunc(names, func(n string) bool { return strings.Contains(l, n) }) {
				now += l
			}
		}
		return now
	}
	const head = "# Changelog\n\n## Unreleased\n\n"
	for name, c := range map[string]struct {
		now, changes string
		want         []string
	}{
		"nothing":                    {before, head, nil},
		"another signature":          {strings.ReplaceAll(before, "n int", "n uint"), head, nil},
		"a function":                 {without("Dial"), head, []string{"fdipc.Dial"}},
		"a method":                   {without("Send"), head, []string{"fdipc.Conn.Send"}},
		"a method of a generic type": {without("Wait"), head, []string{"fdipc.Call.Wait"}},
		"a field of a generic type":  {without("About"), head, []string{"fdipc.Call.About"}},
		"a function type":            {without("WorkerFunc"), head, []string{"coppice.WorkerFunc"}},
		"a constant":                 {without("None"), head, []string{"coppice.None"}},
		"a field":                    {without("Size"), head, []string{"coppice.Pool.Size"}},
		"a type":                     {without("Heartbeat"), head, []string{"coppice.Heartbeat"}},
		"listed":                     {without("Size", "Dial"), head + "Removed:\n\n- `coppice.Pool.Size`, `fdipc.Dial`\n", nil},
		"listed with its type":       {without("Heartbeat"), head + "Removed:\n\n- `coppice.Heartbeat`\n\nMended:\n", nil},
		"named under something else": {without("Size"), head + "Removed:\n\nMended:\n\n- `coppice.Pool.Size`\n", []string{"coppice.Pool.Size"}},
		"listed in an older version": {without("Size"), head + "## v0.1.0\n\nRemoved:\n\n- `coppice.Pool.Size`\n", []string{"coppice.Pool.Size"}},
	} {
		if got := vanished(before, c.now, c.changes); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestLastRelease: the api.txt is that of the latest tag of a version; without one the test that
// needs it is skipped.
func TestLastRelease(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git")
	}
	dir := t.TempDir()
	git := func(args ...string) {
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	commit := func(api string) {
		if err := os.MkdirAll(filepath.Join(dir, "docs"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "docs", "api.txt"), []byte(api), 0o644); err != nil {
			t.Fatal(err)
		}
		git("add", ".")
		git("commit", "-qm", "a")
	}
	git("init", "-q")
	commit("first")
	git("tag", "nightly")
	t.Run("no tag", func(t *testing.T) {
		defer func() {
			if !t.Skipped() {
				t.Error("it is not skipped")
			}
		}()
		lastRelease(t, dir)
	})
	git("tag", "v0.1.0")
	commit("second")
	if tag, api := lastRelease(t, dir); tag != "v0.1.0" || api != "first" {
		t.Errorf("%s %q", tag, api)
	}
}
