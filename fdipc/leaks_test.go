package fdipc_test

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"strings"
	"testing"
	"time"
)

// patience is how long wait and leaks wait for what must happen.
const patience = time.Minute

// wait receives from c. If nothing comes it fails the test and prints all goroutines.
func wait[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("still no %s\n%s", what, stacks())
	}
	return v
}

func stacks() []byte {
	b := make([]byte, 1<<20)
	return b[:runtime.Stack(b, true)]
}

// leaks notes the open descriptors and goroutines and returns the check that there are no more
// of either, to be deferred. Things that end on their own are given time to. Claim
// tables are freed by the garbage collector, which it calls.
func leaks(t testing.TB) (check func()) {
	t.Helper()
	runtime.GC()
	files, routines := descriptors(), runtime.NumGoroutine()
	return func() {
		t.Helper()
		if t.Failed() {
			return
		}
		limit := time.After(patience)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			runtime.GC()
			now := descriptors()
			if len(now) <= len(files) && runtime.NumGoroutine() <= routines {
				return
			}
			select {
			case <-tick.C:
			case <-limit:
				t.Errorf("%d descriptors, were %d; %d goroutines, were %d\n%s\n%s",
					len(now), len(files), runtime.NumGoroutine(), routines, added(files, now), stacks())
				return
			}
		}
	}
}

// descriptors maps the open descriptors to what they are; nil where there is no /proc.
func descriptors() map[string]string {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	m := make(map[string]string, len(names))
	for _, n := range names {
		if what, err := os.Readlink("/proc/self/fd/" + n); err == nil {
			m[n] = what
		}
	}
	return m
}

func added(old, now map[string]string) string {
	var s []string
	for n, what := range now {
		if old[n] != what {
			s = append(s, fmt.Sprintf("new: %s -> %s", n, what))
		}
	}
	sort.Strings(s)
	return strings.Join(s, "\n")
}
