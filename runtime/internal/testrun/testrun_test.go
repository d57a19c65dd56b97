package testrun

import (
	"context"
	"regexp"
	"slices"
	"testing"
)

func TestFind(t *testing.T) {
	if got := Find(t.Context()); got.Name != "TestFind" || !got.Running() {
		t.Errorf("found %+v", got)
	}
	t.Run("sub", func(t *testing.T) {
		if got := Find(t.Context()); got.Name != "" || !got.Running() {
			t.Errorf("in a subtest: found %+v", got)
		}
		if got := Find(WithName(t.Context(), t.Name())); got.Name != "TestFind/sub" || !got.Running() {
			t.Errorf("in a subtest with its name: found %+v", got)
		}
	})
	c := make(chan Test)
	go func() { c <- Find(context.Background()) }() // ends with the send
	if got := <-c; got.Name != "" || !got.Running() {
		t.Errorf("on another goroutine: found %+v", got)
	}
}

func TestTopLevel(t *testing.T) {
	for function, want := range map[string]string{
		"example.com/a.TestX":                "TestX",
		"gopkg.in/yaml%2ev3_test.BenchmarkX": "BenchmarkX",
		"a.ExampleWorker_Listen":             "ExampleWorker_Listen",
		"a.FuzzX":                            "FuzzX",
		"a.TestX.func1":                      "",
		"example.com/a.(*Suite).TestX":       "",
		"a.TestX[...]":                       "",
		"a.check":                            "",
		"github.com/stretchr/testify/suite.Run.func1": "",
		"": "",
	} {
		if got := topLevel(function); got != want {
			t.Errorf("topLevel(%q) = %q, want %q", function, got, want)
		}
	}
}

// TestPattern: a pattern matches each part of the name, and no other part.
func TestPattern(t *testing.T) {
	if got, want := pattern("TestX/a b?/#01"), `^TestX$/^a b\?$/^#01$`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if p := regexp.MustCompile(pattern("")); p.MatchString("TestX") {
		t.Error("no name matches a test")
	}
}

// TestArgs: the flags stand behind those of the test run, which they replace, and before the
// arguments of the program.
func TestArgs(t *testing.T) {
	for _, args := range [][]string{
		{"x.test"},
		{"x.test", "-test.v=true", "--test.run", "A|B", "-test.short"},
		{"x.test", "-test.v", "|", "an-argument", "-test.v"},
		{"x.test", "-test.count", "3", "|", "--", "-test.v"},
		{"x.test", "-test.short", "|", "-of=the-program"},
		{"x.test", "|", "-"},
	} {
		at := slices.Index(args, "|")
		if at < 0 {
			at = len(args)
		} else {
			args = slices.Delete(slices.Clone(args), at, at+1)
		}
		for _, test := range []Test{{"TestX", true}, {"BenchmarkX", true}, {"", true}} {
			got := test.Args(args)
			rest := len(args) - at
			if !slices.Equal(got[:at], args[:at]) || !slices.Equal(got[len(got)-rest:], args[at:]) {
				t.Errorf("%q became %q", args, got)
			}
			if !slices.Equal(got[at:len(got)-rest], test.flags()) {
				t.Errorf("%q became %q without the flags %q", args, got, test.flags())
			}
		}
		if got := (Test{}).Args(args); !slices.Equal(got, args) {
			t.Errorf("outside a test %q became %q", args, got)
		}
	}
	flags := Test{"BenchmarkX", true}.flags()
	if !slices.Contains(flags, "-test.run=^$") || !slices.Contains(flags, "-test.bench=^BenchmarkX$") {
		t.Errorf("a benchmark has %q", flags)
	}
}
