package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// jobsTree serves a tree whose pool of jobs shows what the test of package jobs has written down.
func jobsTree(t *testing.T) (dirs []string, operated func() string) {
	state, err := os.ReadFile("../jobs/testdata/state.json")
	if err != nil {
		t.Fatal(err)
	}
	dir, asked := socketDirectory(t), make(chan string, 8)
	serve(t, dir, "shop.10.sock", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/":
			says("shop", 10)(w, r)
		case "/v1/actors":
			fmt.Fprint(w, `[{"path":"cart"},{"kind":"jobs","summary":"1 waiting","path":"work/queue"}]`)
		case "/v1/actors/state":
			fmt.Fprintf(w, `{"state":"","value":%s}`, bytes.ReplaceAll(state, []byte(`"poison"`), []byte(`"poi\nson"`)))
		case "/v1/workers":
			fmt.Fprint(w, "[]")
		case "/v1/actors/operate":
			asked <- r.FormValue("actor") + " " + r.FormValue("do") + " " + r.FormValue("what")
			fmt.Fprint(w, "event: done\ndata: {\"ok\":true}\n\n")
		default:
			t.Error(r.URL)
		}
	})
	return []string{dir}, func() string { return <-asked }
}

// TestJobs: what jobs and quarantine print of a pool of jobs, and what they ask its queue for.
func TestJobs(t *testing.T) {
	dirs, operated := jobsTree(t)
	got := ""
	for _, args := range []string{"jobs", "jobs work", "quarantine list", `quarantine release "poi\nson"`, "jobs -o json", "quarantine list -o json"} {
		code, out, err := ctl(t.Context(), dirs, strings.Fields(args)...)
		if code != 0 {
			t.Errorf("%s: code %d, %s", args, code, err)
		}
		got += "$ coppicectl " + args + "\n" + out
	}
	if asked := operated(); asked != "work/queue release poi\nson" {
		t.Error(asked)
	}
	file := filepath.Join("testdata", "jobs.txt")
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(file); err != nil || got != string(want) {
		t.Errorf("got\n%swant\n%s%v", got, want, err)
	}
	for args, says := range map[string]string{
		"jobs mail":                      `no pool of jobs is called "mail"; there are: work`,
		"quarantine release a.png":       `key "a.png" is not quarantined`,
		"quarantine release poison mail": `no pool of jobs is called "mail"`,
	} {
		if code, _, err := ctl(t.Context(), dirs, strings.Fields(args)...); code != codeFailed || !strings.Contains(err, says) || !strings.Contains(err, "next: ") {
			t.Errorf("%s: code %d, %s", args, code, err)
		}
	}
}
