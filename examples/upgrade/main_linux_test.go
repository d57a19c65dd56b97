package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// build builds a release of this program, as the README does, and returns its path.
func build(t *testing.T, dir, release string) string {
	t.Helper()
	path := filepath.Join(dir, release)
	cmd := exec.Command("go", "build", "-ldflags", "-X main.release="+release, "-o", path, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return path
}

// slowest asks over fresh connections until ctx ends, and says how long answers took.
func slowest(ctx context.Context, url string) string {
	var took []time.Duration
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for ctx.Err() == nil {
		began := time.Now()
		if resp, err := client.Get(url); err == nil {
			resp.Body.Close()
			took = append(took, time.Since(began))
		}
	}
	slices.Sort(took)
	at := func(part float64) time.Duration { return took[int(part*float64(len(took)-1))] }
	return fmt.Sprintf("%d answers: p50 %v, p99 %v, p99.9 %v, max %v", len(took), at(0.5), at(0.99), at(0.999), at(1))
}

// said are the lines that README.md shows of the program, without numbers and paths.
func said(t *testing.T) (lines []string) {
	t.Helper()
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if l, shown := strings.CutPrefix(l, "    "); shown && (strings.HasPrefix(l, "INFO ") || strings.Contains(l, " is the master")) {
			lines = append(lines, unnumbered(l))
		}
	}
	return lines
}

var varies = regexp.MustCompile(`^\d{4}/\S+ \S+ |program=\S+|(took=|process |http://)\S+`)

// unnumbered is a line without what differs from run to run.
func unnumbered(l string) string { return varies.ReplaceAllString(strings.TrimSpace(l), "$1") }

var upgrades = flag.Int("upgrades", 4, "how often TestReplaced upgrades")

// TestReplaced: two releases, which are two builds, replace each other under load. No request
// fails, the master is the process that was started, and has as many children and descriptors as
// before. COPPICE_SOAK is more often.
func TestReplaced(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("the releases are built with the go command, which is not here:", err)
	}
	if os.Getenv("COPPICE_SOAK") != "" {
		*upgrades = max(*upgrades, 50)
	}
	dir := t.TempDir()
	builds := map[string]string{"A": build(t, dir, "A"), "B": build(t, dir, "B")}
	shop := filepath.Join(dir, "shop")
	install := func(release string) {
		t.Helper()
		if err := os.Link(builds[release], shop+".next"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(shop+".next", shop); err != nil {
			t.Fatal(err)
		}
	}
	install("A")
	p := runtimetest.StartAt(t, shop, []string{"COPPICE_CONTROL=off"}, "-addr", "127.0.0.1:0")
	url := p.Await(`^release A is the master, process \d+, on (http://\S+)$`)[1] + "/"
	children := func() int { return len(runtimetest.Children(t, p.PID())) }
	const all = 3 // the listener process and two workers
	runtimetest.Eventually(t, "all children", func() bool { return children() == all })

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var clients sync.WaitGroup
	var counts [2]runtimetest.Counts
	for i := range counts {
		clients.Go(func() {
			counts[i] = runtimetest.Load{URL: url, InFlight: 2, KeepAlive: i == 1}.Run(ctx)
		})
	}
	clients.Go(func() { t.Log(slowest(ctx, url)) })
	base := 0 // descriptors after the first two: then both releases have run
	for i := range *upgrades {
		to := []string{"B", "A"}[i%2]
		seen := len(p.Lines())
		began := time.Now()
		install(to)
		p.Signal(syscall.SIGUSR2)
		var lines []string
		runtimetest.Eventually(t, "INFO upgraded", func() bool {
			lines = p.Lines()[seen:]
			return slices.ContainsFunc(lines, func(l string) bool {
				if strings.Contains(l, "upgrade failed") {
					t.Fatal(l)
				}
				return strings.Contains(l, "INFO upgraded")
			})
		})
		t.Logf("to %s in %v", to, time.Since(began))
		if !slices.ContainsFunc(lines, func(l string) bool {
			return strings.HasPrefix(l, fmt.Sprintf("release %s is the master, process %d, on ", to, p.PID()))
		}) {
			t.Errorf("release %s is not the master", to)
		}
		runtimetest.Eventually(t, "the children of before", func() bool { return children() == all })
		if i == 0 {
			var have []string
			for _, l := range p.Lines() {
				have = append(have, unnumbered(l))
			}
			for _, want := range said(t) {
				if !slices.Contains(have, want) {
					t.Errorf("the README shows a line that the program did not print: %q", want)
				}
			}
		}
		if i == 1 {
			base = len(runtimetest.Descriptors(t, p.PID()))
		}
	}
	runtimetest.Eventually(t, "the descriptors of before", func() bool { return len(runtimetest.Descriptors(t, p.PID())) <= base })
	stop()
	clients.Wait()
	for _, c := range counts {
		t.Log(c)
		if c.OK == 0 || c.OK != c.Sent() {
			t.Errorf("%v", c)
		}
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
