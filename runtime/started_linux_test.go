package coppice

import (
	"os"
	"path/filepath"
	"testing"
)

// A program that changes its directory or its arguments after its start has children that start in
// the original ones.
func TestChildrenStartAsTheProgramDid(t *testing.T) {
	was, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", "testdata", "/"} {
		if got := workingDir(dir); got != dir {
			t.Errorf("Dir %q became %q although nothing has changed", dir, got)
		}
	}
	t.Chdir(t.TempDir())
	for dir, want := range map[string]string{"": was, "testdata": filepath.Join(was, "testdata"), "/": "/"} {
		if got := workingDir(dir); got != want {
			t.Errorf("Dir %q is %q, want %q", dir, got, want)
		}
	}
	args := os.Args
	defer func() { os.Args = args }()
	first := args[0]
	os.Args[0] = "changed"
	defer func() { args[0] = first }()
	if startedArgs[0] != first {
		t.Errorf("children are started as %q", startedArgs[0])
	}
}
