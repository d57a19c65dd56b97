package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"testing"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-idle" { // the program, or one of its processes
		main()
		return
	}
	os.Exit(m.Run())
}

// No client notices reloads, failing ones among them.
func TestKept(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-idle", "50", "-active", "7", "-hijacked", "1", "-processes", "2", "-reloads", "4", "-failing", "2", "-quiet", "200ms", "-every", "20ms")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"closed", "goodbye", "refused", "lost", "cut", "wrong", "twice", "forced"} {
		if r.Counts[k] != 0 {
			t.Errorf("%s: %d", k, r.Counts[k])
		}
	}
	// A reload that fails in slot 1 has replaced slot 0, and replaces it again.
	if r.Counts["answered"] < 57*2 || r.Counts["drains"] == 0 {
		t.Errorf("%+v", r)
	}
}
