package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestHosts: what the commands for a cluster print, and what they ask for.
func TestHosts(t *testing.T) {
	dir := socketDirectory(t)
	serve(t, dir, "shop.10.sock", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/":
			says("shop", 10)(w, r)
		case "/v1/hosts":
			fmt.Fprint(w, strings.ReplaceAll(`{"cluster":"shop","host":"a","engine":true,"unavailable":"no majority","hosts":[
				{"name":"a","boot":"k3f9x2q1ab7d","address":"10.0.0.1:7400","state":"self","since":"AT","seat":true,"session":true,"names":2},
				{"name":"b","boot":"z3f9x2q1ab7d","address":"10.0.0.2:7400","state":"up","since":"AT","session":true,"asked":"AT","tree":{"pools":[{"path":"gateway","workers":1,"ready":1},{"path":"web","workers":4,"ready":3,"generations":[1,2]}]}},
				{"name":"c","address":"10.0.0.3:7400","state":"unreachable","since":"AT","why":"nothing\\ncame","silent":"no trunk","asked":"AT","tree":{"pools":[{"path":"web","workers":4,"ready":4,"generations":[1]}]}}]}`, "AT", time.Now().Add(-2*time.Hour).Format(time.RFC3339)))
		case "/v1/workers":
			fmt.Fprint(w, "[]")
		case "/v1/hosts/reload":
			fmt.Fprintf(w, "event: event\ndata: {\"kind\":\"hosts\",\"why\":\"b: reloads, 1 of 2 %v %s\"}\n\nevent: done\ndata: {\"ok\":true}\n\n", r.URL.Query()["host"], r.FormValue("settle"))
		default:
			t.Error(r.URL)
		}
	})
	got := ""
	for _, args := range []string{"hosts members", "hosts reload b c --settle 1s"} {
		code, out, err := ctl(t.Context(), []string{dir}, strings.Fields(args)...)
		if code != 0 {
			t.Errorf("%s: code %d, %s", args, code, err)
		}
		got += "$ coppicectl " + args + "\n" + regexp.MustCompile(` +\d+\w\d\d\w( ago)?`).ReplaceAllString(out, " AGE$1")
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
