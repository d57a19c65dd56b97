package declaration

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

type live struct {
	Timeout time.Duration
	Check   func()
}

type Pool struct {
	Name, Dir string
	Size      int
	Live      live
	Hosts     []string
	Env       []string
	Worker    func()
	At        *int
	hidden    int
}

// TestOf: each field that can be compared is one line, and a variable does not show its value.
func TestOf(t *testing.T) {
	at := 1
	got := Of("web", Pool{
		Name: "web", Dir: "a b\nc\xff", Size: 2, Live: live{3 * time.Second, func() {}}, Hosts: []string{"a", "b"},
		Env: []string{"A=1", "KEY=secret", "A=2", "GONE"}, Worker: func() {}, At: &at, hidden: 1,
	}, "Name")
	want := []string{
		`web is Pool`,
		`web Dir a b\nc\xff`,
		`web Size 2`,
		`web Live.Timeout 3s`,
		`web Hosts [a b]`,
		`web Env.A (sha256 d4735e3a)`,
		`web Env.KEY (sha256 2bb80d53)`,
		`web Env.GONE removed`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestBounded: what is sent is within its bound, passes through JSON unchanged, and shows a
// difference wherever it is.
func TestBounded(t *testing.T) {
	many := slices.Repeat([]string{"a is Pool"}, 100_000)
	for name, lines := range map[string][]string{
		"short":    {"a is Pool", "b is Func"},
		"long":     {"a is Pool", "a Dir " + strings.Repeat("<", 1<<20), "b is Func"},
		"all long": slices.Repeat([]string{"a Dir " + strings.Repeat("x", 1<<10)}, 100),
		"many":     many,
	} {
		b, err := json.Marshal(Bounded(lines))
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 6*MaxText {
			t.Errorf("%s: %d bytes", name, len(b))
		}
		var got []string
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		if d := Compare(got, Bounded(slices.Clone(lines))); d != nil {
			t.Errorf("%s: %.300v", name, d)
		}
		other := slices.Clone(lines)
		other[len(other)-1] += "y"
		if Compare(got, Bounded(other)) == nil {
			t.Errorf("%s: no difference is seen", name)
		}
	}
	// Nothing counts as missing in what was cut.
	if c, ok := Missing([]string{"z is Pool"}, Bounded(many)); ok {
		t.Errorf("missing: %v", c)
	}
}

// TestCompare: a child that comes, goes or changes its kind is one change.
func TestCompare(t *testing.T) {
	a := []string{"web is Pool", "web Size 2", "web Dir /a", "cron is Func", "cron Shutdown 1s", "db is Process", "/ OrphanDrain 1s"}
	b := []string{"web is Pool", "web Size 3", "web Live.Timeout 3s", "cron is Actor", "cron Bound 3", "new is Func", "new Shutdown 1s", "/ OrphanDrain 2s"}
	var got []string
	for _, c := range Compare(a, b) {
		got = append(got, fmt.Sprintf("%s: %q to %q", c.Field, c.From, c.To))
	}
	want := []string{
		`web.Size: "2" to "3"`, `web.Dir: "/a" to ""`, `cron: "Func" to "Actor"`, `db: "Process" to ""`, `Config.OrphanDrain: "1s" to "2s"`,
		`web.Live.Timeout: "" to "3s"`, `new: "" to "Func"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if c, ok := Missing([]string{"web is Pool", "cron is Func"}, b); !ok || c != (Change{Field{"cron", Is}, "Func", "Actor"}) {
		t.Errorf("missing: %v", c)
	}
	if c, ok := Missing([]string{"web is Pool"}, b); ok {
		t.Errorf("missing: %v", c)
	}
	if got := With(a[:3], Field{"web", "Size"}, "7"); !slices.Equal(got, []string{"web is Pool", "web Size 7", "web Dir /a"}) {
		t.Errorf("with another size: %q", got)
	}
	if got := With(a[:3], Field{"web", "Size"}, ""); !slices.Equal(got, []string{"web is Pool", "web Dir /a"}) {
		t.Errorf("without a size: %q", got)
	}
}

func text(changes []Change) string {
	var s []string
	for _, c := range changes {
		s = append(s, fmt.Sprintf("%s %s %s", c.Field, c.From, c.To))
	}
	return strings.Join(s, ", ")
}

// TestRecords: what a reload takes over, keeps and leaves unsaid. Each row has what the workers of
// the two programs declare; nil is the same as the tree.
func TestRecords(t *testing.T) {
	tree := []string{"web is Pool", "web Size 2", "web Live.Timeout 2s"}
	size := func(n string) []string { return With(tree, Field{"web", "Size"}, n) }
	timeout := func(d string) []string { return With(tree, Field{"web", "Live.Timeout"}, d) }
	for _, tt := range []struct {
		name           string
		then, now      []string
		sizes          string
		kept, computed string
	}{
		{name: "nothing changed"},
		{name: "a size", now: size("3"), sizes: "web.Size 2 3"},
		{name: "the default size", now: size(""), sizes: "web.Size 2 "},
		{name: "another field", now: timeout("3s"), kept: "web.Live.Timeout 2s 3s"},
		{name: "a child more", now: append(slices.Clone(tree), "cron is Func", "cron Shutdown 1s"), kept: "cron  Func"},
		{name: "computed alike in all workers", then: size("1"), now: size("1")},
		{name: "computed, and changed", then: size("1"), now: size("8"), computed: "web.Size 2 8"},
		{name: "computed, and now as in the tree", then: size("1")},
		{name: "differs in each process", then: timeout("4s"), now: timeout("5s"), computed: "web.Live.Timeout 2s 5s"},
	} {
		r := NewRecords(tree, 1)
		r.Add(1, "web", tt.then)
		r.Add(1, "web", size("9")) // its replacement, after main had read something else, does not count
		r.Add(2, "web", tt.now)
		sizes, kept, computed := r.Reloaded(1, 2)
		if got, want := []string{text(sizes), text(kept), text(computed)}, []string{tt.sizes, tt.kept, tt.computed}; !slices.Equal(got, want) {
			t.Errorf("%s: sizes, kept and computed %q, want %q", tt.name, got, want)
		}
		if len(r.generations) > 1 {
			t.Errorf("%s: records of %d generations", tt.name, len(r.generations))
		}
	}
}

// TestRecordsOfReleases: release after release, each change is reported once, and a size that was
// taken over is the tree's.
func TestRecordsOfReleases(t *testing.T) {
	tree := []string{"a is Pool", "a Size 2", "b is Pool", "b Size 4"}
	r := NewRecords(tree, 1)
	r.Add(1, "a", nil)
	r.Add(1, "b", []string{"a is Pool", "a Size 2", "b is Pool", "b Size 1"}) // its processes have one CPU
	second := With(With(tree, Field{"a", "Size"}, "3"), Field{"b", "Restart"}, "transient")
	r.Add(2, "b", With(second, Field{"b", "Size"}, "1"))
	sizes, kept, _ := r.Reloaded(1, 2)
	if want := []Change{{Field{"a", "Size"}, "2", "3"}}; !reflect.DeepEqual(sizes, want) || len(kept) != 1 {
		t.Fatalf("sizes %v, kept %v", sizes, kept)
	}
	r.Apply(sizes[0])
	r.Add(3, "b", With(second, Field{"b", "Size"}, "1"))
	if sizes, kept, computed := r.Reloaded(2, 3); sizes != nil || kept != nil || computed != nil {
		t.Errorf("the same again: sizes %v, kept %v, computed %v", sizes, kept, computed)
	}
	r.Add(4, "b", []string{"a is Pool", "a Size 9"})
	r.Failed(4)
	if news := r.News(With(r.Tree(), Field{"a", "Restart"}, "temporary")); len(news) != 1 {
		t.Errorf("news %v", news)
	}
	if news := r.News(With(r.Tree(), Field{"a", "Restart"}, "permanent")); len(news) != 0 {
		t.Errorf("reported twice: %v", news)
	}
	if _, ok := Missing(tree[:1], second); ok {
		t.Error("missing in what has all")
	}
	lies := make([]string, 0, 5000)
	for i := range 5000 {
		lies = append(lies, fmt.Sprintf("x%d Size 1", i))
	}
	if r.News(lies); len(r.reported) > maxReported {
		t.Errorf("%d fields are remembered", len(r.reported))
	}
}
