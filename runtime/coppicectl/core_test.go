package main

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.Local)

// decode returns values from lines of JSON.
func decode[T any](t *testing.T, lines string) (vs []T) {
	t.Helper()
	for line := range strings.Lines(strings.TrimSpace(lines)) {
		var v T
		if err := json.Unmarshal([]byte(strings.ReplaceAll(line, "AT", noon.Add(-time.Minute).Format(time.RFC3339))), &v); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		vs = append(vs, v)
	}
	return vs
}

const webTree = `{"name":"master","role":"master","state":"running","pid":10,"since":"AT","children":[{"name":"listeners","role":"supervisor","state":"running","since":"AT","children":[{"name":"listener","role":"listener","state":"running","id":1,"pid":11,"since":"AT"}]},{"name":"web","role":"pool","state":"running","since":"AT","budget":5,"used":2,"children":[{"name":"web/0","role":"worker","state":"STATE","id":7,"pid":12,"incarnation":2,"since":"AT"},{"name":"web/1","role":"worker","state":"running","id":3,"pid":13,"since":"AT"}]}]}`

// TestWhy: the sentence names what led to the present state.
func TestWhy(t *testing.T) {
	const exited = `{"cursor":11,"time":"AT","kind":"exited","path":"web/0","name":"web/0","id":4,"pid":20,"reason":"exit code 2: panic: boom","took_seconds":90,"fault":true,"text":"web/0#4 exited: exit code 2: panic: boom"}
`
	for name, c := range map[string]struct{ of, state, events, crashes, want string }{
		"nothing happened":   {"web/1", "running", "", "", "web/1 is running since 11:59:00 (1m00s), now as pid 13; it has not ended since the tree began"},
		"events are gone":    {"web/0", "running", "", "", "web/0 is running since 11:59:00 (1m00s), now as pid 12; it is incarnation 2, and the events that say why are no longer kept"},
		"by its ID":          {"3", "running", "", "", "web/1 is running since 11:59:00 (1m00s), now as pid 13; it has not ended since the tree began"},
		"crashed, restarted": {"web/0", "running", exited + `{"cursor":12,"time":"AT","kind":"restarting","path":"web/0","attempt":1,"left":3,"max":5}`, `{"name":"web/0","id":4,"exit":{"words":"panic: boom"},"held":[{"listener":"http","open":2}]}`, "web/0 is running since 11:59:00 (1m00s), now as pid 12: pid 20 ended 1m00s ago after 1m30s, with exit code 2: panic: boom, and 2 connections lost; it was restarted (attempt 1) with 3 of 5 restarts left"},
		"no process":         {"web/0", "down", strings.Replace(exited, `"pid":20,`, "", 1), "", "web/0 is down since 11:59:00 (1m00s): it ended 1m00s ago after 1m30s, with exit code 2: panic: boom; it is not restarted: its spec says so"},
		"waits":              {"web/0", "restarting", exited + `{"cursor":12,"time":"AT","kind":"restarting","path":"web/0","attempt":4,"left":0,"max":5,"delay_seconds":63}`, "", "web/0 is restarting since 11:59:00 (1m00s): pid 20 ended 1m00s ago after 1m30s, with exit code 2: panic: boom; attempt 4 is in 3s, with 0 of 5 restarts left"},
		"reloaded":           {"web/0", "running", `{"cursor":8,"time":"AT","kind":"asked by an operator","why":"reload, user 0, pid 5"}` + "\n" + `{"cursor":12,"time":"AT","kind":"replaced","path":"web","slot":0,"name":"web/0","why":"reload","generation":2}`, "", "web/0 is running since 11:59:00 (1m00s), now as pid 12: it took the place of its predecessor 1m00s ago in the reload to generation 2; an operator had asked for it (reload, user 0, pid 5)"},
		"recycled":           {"web/0", "running", `{"cursor":11,"time":"AT","kind":"due","path":"web","slot":0,"name":"web/0","why":"memory 80 MiB"}` + "\n" + `{"cursor":12,"time":"AT","kind":"replaced","path":"web","slot":0,"name":"web/0","why":"recycle"}`, "", "web/0 is running since 11:59:00 (1m00s), now as pid 12: it took the place of its predecessor 1m00s ago (recycle), which was due: memory 80 MiB"},
		"because of another": {"web/1", "running", exited + `{"cursor":12,"time":"AT","kind":"stopping","path":"web/1","name":"web/1","cause":"web/0"}`, "", "web/1 is running since 11:59:00 (1m00s), now as pid 13: it was stopped 1m00s ago because of web/0, as its supervisor's strategy says, which ended with exit code 2: panic: boom"},
		"pool":               {"web", "restarting", exited, "", "web is running since 11:59:00 (1m00s), with 1 of 2 children up and 3 of 5 restarts left: web/0 is restarting; the last that happened is web/0#4 exited: exit code 2: panic: boom, 1m00s ago"},
		"no reload":          {"reload", "running", exited, "", "no reload is known: the tree has not been reloaded, or its events are no longer kept"},
		"reload failed":      {"reload", "running", `{"cursor":1,"time":"AT","kind":"tree reloading","generation":2}` + "\n" + `{"cursor":2,"time":"AT","kind":"failed","path":"web","slot":0,"name":"web/0","id":9,"reason":"exit code 1"}` + "\n" + `{"cursor":3,"time":"AT","kind":"tree reloaded","generation":2,"took_seconds":2,"error":"coppice: reload to generation 2 failed: web/0: exit code 1\n  web/0| no database"}`, `{"name":"web/0","id":9,"exit":{},"lines":[{"text":"no database"}]}`, `the last reload to generation 2 failed 1m00s ago after 2s: web/0: exit code 1 (its last line was "no database"); the processes run generation 1`},
		"reload goes on":     {"reload", "running", `{"cursor":1,"time":"AT","kind":"tree reloading","generation":2}`, "", "the reload to generation 2 began 1m00s ago and is under way"},
		"gone":               {"old", "running", `{"cursor":1,"time":"AT","kind":"removed","path":"old","text":"old removed"}`, "", "old is no longer in the tree: old removed, 1m00s ago"},
		"keeps ending":       {"web/1", "running", strings.Repeat(`{"cursor":1,"time":"NOW","kind":"exited","path":"web/1","name":"web/1","reason":"boom","took_seconds":1}`+"\n", 4) + `{"cursor":2,"time":"AT","kind":"exited","path":"web/1","name":"web/1","pid":20,"reason":"boom","took_seconds":1}` + "\n", "", "web/1 is running since 11:59:00 (1m00s), now as pid 13: pid 20 ended 1m00s ago after 1s, with boom; web/1 keeps ending: 4 times within the last minute"},
		"listener":           {"http", "running", "", "", "http (tcp 127.0.0.1:80, round-robin) accepts; it has accepted 9 connections, of which 7 were claimed by a worker, 1 wait, and 1 are lost"},
		"paused listener":    {"127.0.0.1:81", "running", `{"time":"AT","kind":"asked by an operator","why":"pause listener=127.0.0.1:81, user 0, pid 5"}`, "", "127.0.0.1:81 (tcp 127.0.0.1:81, hash) is paused: new connections wait until it is resumed; an operator had asked for it 1m00s ago (pause listener=127.0.0.1:81, user 0, pid 5)"},
		"no such":            {"nix", "running", exited, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c.events = strings.ReplaceAll(c.events, "NOW", noon.Format(time.RFC3339))
			listeners := decode[listener](t, `{"name":"http","network":"tcp","address":"127.0.0.1:80","policy":"round-robin","counts":{"accepted":9,"claimed":7,"waiting":1,"reset":1}}
{"network":"tcp","address":"127.0.0.1:81","policy":"hash","paused":true}`)
			f := facts{now: noon, listeners: listeners, root: decode[node](t, strings.ReplaceAll(webTree, "STATE", c.state))[0], events: decode[event](t, c.events), crashes: decode[crash](t, c.crashes), workers: []worker{{ID: 7, Generation: 1}}}
			got, ok := f.why(c.of)
			if got != c.want || ok != (c.want != "") {
				t.Errorf("%t\ngot  %s\nwant %s", ok, got, c.want)
			}
		})
	}
}

// TestProgress: a line for each slot of a reload, and for what goes wrong.
func TestProgress(t *testing.T) {
	p := newProgress([]worker{{Name: "master", Role: "master"}, {Name: "listener", Role: "listener", PID: 11}, {Name: "web/0", Role: "worker", PID: 12}})
	var got []string
	for _, e := range decode[event](t, `
{"kind":"asked by an operator","why":"reload"}
{"kind":"tree reloading","generation":2}
{"kind":"starting","path":"web","slot":0,"why":"reload"}
{"kind":"failed","path":"web","slot":0,"name":"web/0","reason":"exit code 1"}
{"kind":"replaced","path":"web","slot":0,"name":"web/0","id":7,"pid":22,"why":"reload","took_seconds":0.25}
{"kind":"draining","path":"web","slot":0,"name":"web/0","id":4,"why":"reload"}
{"kind":"starting","path":"listeners","slot":0,"why":"reload"}
{"kind":"replaced","path":"listeners","slot":0,"name":"listener","id":8,"pid":21,"why":"reload","took_seconds":0.1}
{"kind":"draining","path":"listeners","name":"listener","id":1}
{"kind":"drained","path":"listeners","name":"listener","id":1,"reason":"shutdown"}
{"kind":"starting","path":"web","slot":0,"why":"roll back","generation":1}
{"kind":"scaled","path":"web","text":"web scaled to 3 in 1s"}
`) {
		if line, transient := p.add(e); line != "" && transient {
			got = append(got, line+" …")
		} else if line != "" {
			got = append(got, line)
		}
	}
	got = append(got, p.end(result{Took: 1.5}), newProgress(nil).end(result{}))
	want := []string{
		"reload to generation 2",
		"  web/0          starts: reload …",
		"  web/0          failed: exit code 1",
		"  web/0          ready in 250ms, pid 22 in place of 12  [1/2]",
		"  listener       starts: reload …",
		"  listener       ready in 100ms, pid 21 in place of 11  [2/2]",
		"  web/0          goes back to generation 1",
		"  web scaled to 3 in 1s",
		"done in 1.5s; old processes that still drain: 1",
		"done",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestProgressOfOne: a reload that waits for another shows its own lines alone, and so does the one
// after which another begins.
func TestProgressOfOne(t *testing.T) {
	p := newProgress(nil)
	p.reload = true
	var got []string
	for _, e := range decode[event](t, `
{"kind":"replaced","path":"web","slot":0,"name":"web/0","pid":22,"why":"reload"}
{"kind":"tree reloaded","generation":2}
{"kind":"tree reloading","generation":3}
{"kind":"replaced","path":"web","slot":0,"name":"web/0","pid":23,"why":"reload","took_seconds":1}
{"kind":"tree reloaded","generation":3}
{"kind":"tree reloading","generation":4}
{"kind":"starting","path":"web","slot":0,"why":"reload"}
`) {
		if line, _ := p.add(e); line != "" {
			got = append(got, line)
		}
	}
	want := []string{"another reload is under way, and this one waits for it", "reload to generation 3", "  web/0          ready in 1s, pid 23 in place of 22"}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestHinted: what is to be done next is done with the tree that was named.
func TestHinted(t *testing.T) {
	for next, want := range map[string]string{
		"coppicectl why reload tells more, coppicectl crashes too":            "coppicectl -t hello why reload tells more, coppicectl -t hello crashes too",
		"coppicectl ls lists the trees that run; is coppicectl as new as it?": "coppicectl ls lists the trees that run; is coppicectl as new as it?",
	} {
		if got := (&command{which: "hello"}).hinted(next); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if got := (&command{}).hinted(next); got != next {
			t.Errorf("without a name: %s", got)
		}
	}
}

// TestTableFits: no line is longer than the width, whatever it is, and names and states stay.
func TestTableFits(t *testing.T) {
	root := decode[node](t, strings.ReplaceAll(webTree, "STATE", "down"))[0]
	root.Children[1].Children[0].LastExit = "exit code 2: panic: " + strings.Repeat("long ", 30)
	for width := 1; width < 220; width++ {
		lines := append(picture(view{now: noon, width: width}, root, nil, nil), processes(view{now: noon, width: width}, []worker{{Name: "a-long-name/0", PID: 4711}})...)
		for _, l := range lines {
			if utf8.RuneCountInString(l) > width {
				t.Errorf("width %d, %d characters: %s", width, utf8.RuneCountInString(l), l)
			}
		}
		if width < 35 {
			continue
		}
		if !strings.Contains(lines[5], "web/0") || !strings.Contains(lines[5], "down") {
			t.Errorf("width %d: %s", width, lines[5])
		}
	}
}

// TestCleanText: what a process prints cannot steer the terminal.
func TestCleanText(t *testing.T) {
	for text, want := range map[string]string{
		"plain ü 漢": "plain ü 漢", "\x1b[2Jgone": "?[2Jgone", "a\rb": "a?b", "\u202eevil": "?evil", "\x9b31m": "?31m", "tab\tnew\nline": "tab new line",
	} {
		if got := clean(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

// TestDifference: lines that only one side has, whatever their order.
func TestDifference(t *testing.T) {
	for _, c := range []struct{ a, b, want string }{
		{"x\ny\n", "y\nx", ""},
		{"web.Size 2\nweb Pool\n", "web Pool\nweb.Size 3\n", "-web.Size 2 +web.Size 3"},
		{"x\nx\n", "x\n", "-x"},
		{"", "x\n", "+x"},
	} {
		if got := strings.Join(difference(c.a, c.b), " "); got != c.want {
			t.Errorf("%q and %q: %q, want %q", c.a, c.b, got, c.want)
		}
	}
}
