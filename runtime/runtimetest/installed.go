package runtimetest

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Release is a version of the program of [Main] that an [Installed] path can hold.
type Release string

// The releases. All but Good end, or hang, before the program begins.
const (
	Good  Release = "coppice:good:"
	Fails Release = "coppice:fails" // prints a line and exits with 3
	Hangs Release = "coppice:hangs" // does nothing, for an hour
)

// Installed is a separate program file, as a deployment would replace it.
type Installed struct {
	t        testing.TB
	path     string
	releases map[Release]string
}

// Install puts the program of [Main] in a new directory.
func Install(t testing.TB) *Installed {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	in := &Installed{t: t, path: filepath.Join(dir, "program"), releases: map[Release]string{}}
	for _, r := range []Release{Good, Fails, Hangs} {
		in.releases[r] = filepath.Join(dir, string(r))
		if err := copyProgram(in.releases[r], self, r); err != nil {
			t.Fatal(err)
		}
	}
	in.Replace(Good)
	return in
}

// copyProgram copies a program with a mark behind its end, which no loader reads.
func copyProgram(to, from string, r Release) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err = io.Copy(dst, src); err == nil {
		_, err = dst.WriteString(string(r))
	}
	if cerr := dst.Close(); err == nil {
		err = cerr
	}
	return err
}

// Replace puts a release in the program's place atomically, as a deployment does.
func (in *Installed) Replace(r Release) {
	in.t.Helper()
	next := in.path + ".next"
	if err := os.Link(in.releases[r], next); err != nil {
		in.t.Fatal(err)
	}
	if err := os.Rename(next, in.path); err != nil {
		in.t.Fatal(err)
	}
	_ = os.Remove(next) // rename does nothing when both are the same file already
}

// Start starts the installed program; see [Start].
func (in *Installed) Start(env []string, args ...string) *Program {
	in.t.Helper()
	return start(in.t, in.path, env, nil, args...)
}

// beAsInstalled does what the release of this process does before the program begins.
func beAsInstalled() {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return
	}
	defer f.Close()
	mark := make([]byte, len(Good))
	if st, err := f.Stat(); err != nil || st.Size() < int64(len(mark)) {
		return
	} else if _, err := f.ReadAt(mark, st.Size()-int64(len(mark))); err != nil {
		return
	}
	switch Release(mark) {
	case Fails:
		fmt.Fprintln(os.Stderr, "this release is broken")
		os.Exit(3)
	case Hangs:
		time.Sleep(time.Hour)
	case Good:
	}
}
