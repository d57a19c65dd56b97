//go:build linux

package main

import (
	"strconv"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

// TestProcesses: slot 1 of 3 is killed under each strategy, in a pool and among
// children of every kind, and those are replaced that OTP replaces. At the end
// no process is left, of what scripts have left behind either.
func TestProcesses(t *testing.T) {
	p := runtimetest.Start(t, nil, "-processes")
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	said := map[string]bool{}
	left := 0
	for _, l := range p.Lines() {
		said[l] = true
		if _, pid, ok := strings.Cut(l, "left behind: "); ok {
			left++
			n, err := strconv.Atoi(pid)
			if err != nil {
				t.Error(err)
			}
			runtimetest.Eventually(t, "gone: "+l, func() bool { return !runtimetest.Alive(n) })
		}
	}
	if left < 3 {
		t.Errorf("%d scripts have left something behind, want at least 3", left)
	}
	for _, want := range []string{
		"one_for_one web/1: replaced web/1",
		"one_for_one sleep: replaced sleep",
		"one_for_all web/1: replaced web/0 web/1 web/2",
		"one_for_all sleep: replaced clock counter web/0 web/1 web/2 own sleep deaf",
		"rest_for_one web/1: replaced web/1 web/2",
		"rest_for_one sleep: replaced sleep deaf",
	} {
		if !said[want] {
			t.Errorf("not said: %s", want)
		}
	}
}
