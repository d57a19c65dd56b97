package main

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "draw trace.svg anew")

// recorded is what the README shows, as a real Jaeger answered it.
func recorded(t *testing.T) []panel {
	t.Helper()
	f, err := os.Open("testdata/traces.json")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	traces, err := readTraces(f)
	if err != nil {
		t.Fatal(err)
	}
	return story(881, 888, traces[0], traces[1], traces[2])
}

func TestWaterfall(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range recorded(t) {
		var out strings.Builder
		waterfall(&out, p.spans)
		want := p.title + ":\n\n    " + strings.ReplaceAll(strings.TrimSpace(out.String()), "\n", "\n    ")
		if !strings.Contains(string(readme), want) {
			t.Errorf("the README does not have\n%s", want)
		}
	}
}

func TestPicture(t *testing.T) {
	var out strings.Builder
	if err := picture(&out, recorded(t)); err != nil {
		t.Fatal(err)
	}
	if *rewrite {
		if err := os.WriteFile("trace.svg", []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("trace.svg")
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Error("trace.svg differs: go test -run Picture -rewrite, and look at it")
	}
}

// What comes from the traces is text in the picture, and one moment is drawn too.
func TestPictureOfAnything(t *testing.T) {
	var out strings.Builder
	s := span{TraceID: "7", ID: "1", Name: "<script>&", Tags: []tag{{"error", true}, {"error.type", "a<b"}}}
	if err := picture(&out, []panel{{"\"1\" < 2", []span{s}}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"&lt;script&gt;&amp;", "a&lt;b", "&#34;1&#34; &lt; 2"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the picture lacks %s:\n%s", want, out.String())
		}
	}
}
