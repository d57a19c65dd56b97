package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestHosts: what the commands for a cluster print, and what they ask for.
func TestHosts(t *testing.T) {
	dir := socketDirectory(t)
	serve(t, dir, "shop.10.sock", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/":
			says("shop", 10)(w, r)
		case "/v1/hosts":
			fmt.Fprint(w, `{"cluster":"shop","host":"a","engine":true,"unavailable":"no majority","hosts":[
				{"name":"a","boot":"k3f9x2q1ab7d","address":"10.0.0.1:7400","state":"self","since":"2026-11-30T10:00:00Z","seat":true,"session":true,"names":2},
				{"name":"b","boot":"z3f9x2q1ab7d","address":"10.0.0.2:7400","state":"up","since":"2026-11-30T11:00:00Z","session":true},
				{"name":"c","address":"10.0.0.3:7400","state":"unreachable","since":"2026-11-30T11:00:00Z","why":"nothing\\ncame"}]}`)
		default:
			t.Error(r.URL)
		}
	})
	got := ""
	for _, args := range []string{"hosts members"} {
		code, out, err := ctl(t.Context(), []string{dir}, strings.Fields(args)...)
		if code != 0 {
			t.Errorf("%s: code %d, %s", args, code, err)
		}
		got += "$ coppicectl " + args + "\n" + regexp.MustCompile(` +\d+\w\d\d\w  `).ReplaceAllString(out, "  AGE  ")
	}
	file := filepath.Join("testdata", "hosts.txt")
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(file); err != nil || got != string(want) {
		t.Errorf("got\n%swant\n%s%v", got, want, err)
	}
}
