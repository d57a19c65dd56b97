package runtimetest

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// settle is how long what ends with the test has to end, before it counts as leaked.
const settle = Patience / 6

// Leaks fails the test if, when it ends, this process has anything that it does not have now: a
// descriptor, a goroutine, a child, a mapping of a file or of shared memory. What only seems to
// end has 10 s to do so. Call it first, in a test that does not run in parallel with others: the
// tree that the test starts after it has ended by then.
//
// Idle connections of http.DefaultTransport are closed, and do not count. Nor does what a process
// has once for good: goroutines of package testing, of the handling of signals, and the one that
// starts processes; and nor do pages that the garbage collector unmaps.
func Leaks(t testing.TB) {
	t.Helper()
	before := holdings(t)
	t.Cleanup(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(settle); ; <-tick.C {
			if tr, ok := http.DefaultTransport.(*http.Transport); ok {
				tr.CloseIdleConnections()
			}
			left := extra(before, holdings(t))
			if len(left) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
				return
			}
		}
	})
}

// extra returns what now has more of than before.
func extra(before, now map[string]int) []string {
	var more []string
	for _, what := range slices.Sorted(maps.Keys(now)) {
		for range now[what] - before[what] {
			more = append(more, what)
		}
	}
	return more
}

// ofGo is what Go's runtime opens once, and keeps.
var ofGo = regexp.MustCompile(`^(anon_inode:\[event(poll|fd)\]|/sys/fs/cgroup/.*)$`)

// ofCollector are pages of Coppice's that are unmapped by the garbage collector.
var ofCollector = regexp.MustCompile(`^/memfd:(coppice-counts|fdipc-claims)$`)

// ofTesting are goroutines that no test has started, or that stay for good: the last is the thread
// that forks.
var ofTesting = regexp.MustCompile(`(?m)^created by (testing\.|runtime\.|os/signal\.|\S+/runtime/internal/process\.init)|^testing\.\(\*M\)\.`)

// holdings counts what this process has, each by a line that names it.
func holdings(t testing.TB) map[string]int {
	t.Helper()
	has := map[string]int{}
	for fd, to := range Descriptors(t, os.Getpid()) {
		if !ofGo.MatchString(to) && to != fmt.Sprintf("/proc/%d/fd", os.Getpid()) {
			has[fmt.Sprintf("descriptor %d: %s", fd, to)]++
		}
	}
	for _, kid := range Children(t, os.Getpid()) {
		has[fmt.Sprintf("child: process %d", kid)]++
	}
	mappings, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mappings)) {
		if f := strings.Fields(line); len(f) > 5 && f[5][0] != '[' && !ofCollector.MatchString(f[5]) { // proc_pid_maps(5): its pathname
			has["mapping: "+strings.Join(f[5:], " ")]++
		}
	}
	stacks := make([]byte, 1<<20)
	for n := runtime.Stack(stacks, true); n == len(stacks); n = runtime.Stack(stacks, true) {
		stacks = make([]byte, 2*n)
	}
	for _, g := range strings.Split(strings.TrimRight(string(stacks), "\x00\n"), "\n\n")[1:] { // the first is this one
		if head, stack, _ := strings.Cut(g, "\n"); !ofTesting.MatchString(stack) {
			name, _, _ := strings.Cut(head, " [")
			if at := strings.LastIndex(stack, "created by "); at >= 0 {
				stack = stack[at:]
			}
			has[name+" "+strings.ReplaceAll(stack, "\n", "")]++
		}
	}
	return has
}
