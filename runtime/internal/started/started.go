// Package started knows the state in which this program was started, captured before main could
// change it. The children start in the same state at any time.
package started

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

var (
	args = slices.Clone(os.Args)

	info               os.FileInfo // of the directory
	self, program, dir string
)

// Capture captures the rest of the state, the first time. It is for the init of a master, since it
// takes some 40 system calls, which a child has no use for.
var Capture = sync.OnceFunc(func() {
	cwd, _ := os.Getwd() // by its name in PWD, with symbolic links, if that is the directory
	info, _ = os.Stat(".")
	self, program = ownPath(), findProgram(cwd, execPath(), args[0])
	dir = nameDir(cwd, program)
	captureLimits()
})

// Args returns the arguments of the program; the first is its name.
func Args() []string { return slices.Clone(args) }

// Program returns the absolute path by which this program was started, with its symbolic links: a
// reload follows them again. If the system does not say, and argv[0] is made up, it is the path of
// the program's file, by a link only if the directory's name has it; then Program returns an error
// if no other program is there by now, because one may be where a link that is not known leads to.
func Program() (string, error) {
	if Capture(); program != "" {
		return program, nil
	}
	path := named(dir, self)
	at, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("this program was started as %q, which is not its path, and its file is gone: %w", args[0], err)
	}
	if is, err := os.Stat(ownFile()); err == nil && os.SameFile(at, is) {
		return "", fmt.Errorf("this program was started as %q, which is not its path, and %s is still the old program: start it by its path", args[0], path)
	}
	return path, nil
}

// Known returns the path by which this program was started and the name of the directory in which
// it was, for the next image of it; "" = not known.
func Known() (path, name string) { Capture(); return program, dir }

// TakeOver makes what was Known to the image before this one known to this one, which was executed
// by a descriptor. Call it before the other functions are used.
func TakeOver(path, name string) {
	Capture()
	program, dir = cmp.Or(path, program), cmp.Or(name, dir)
}

// Dir returns the directory in which this program was started, by a name with symbolic links if one
// is known; "" if the directory has no name. A name is known from PWD, or because the program was
// started by a path with a link to the directory, or to one above.
func Dir() string { Capture(); return dir }

// IsHere reports whether the present directory is the one in which this program was started.
func IsHere() bool {
	Capture()
	now, err := os.Stat(".")
	return err == nil && info != nil && os.SameFile(now, info)
}

// In returns the path of dir, which begins at the directory in which this program was started, for
// a process that begins in this program's directory. The name of the directory is followed anew. If
// it leads nowhere, and this program is still there, dir begins here.
func In(start, dir string) string {
	if filepath.IsAbs(dir) || start == "" {
		return dir
	}
	named, err := os.Stat(start)
	if err != nil && IsHere() {
		return dir
	}
	if here, hereErr := os.Stat("."); err == nil && hereErr == nil && os.SameFile(here, named) {
		return dir
	}
	return filepath.Join(start, dir)
}

// ownPath returns the path of the program's file, without symbolic links.
func ownPath() string {
	path, err := os.Executable()
	if err != nil {
		return args[0]
	}
	return path
}

// findProgram returns the absolute path that leads to this program: that of its exec, or argv[0],
// or "". Both may be made up, or relative to the directory cwd.
func findProgram(cwd, execPath, argv0 string) string {
	is, err := os.Stat(ownFile())
	if err != nil {
		return ""
	}
	if !strings.ContainsRune(argv0, filepath.Separator) {
		argv0, _ = exec.LookPath(argv0)
	}
	for _, path := range []string{execPath, argv0} {
		if path == "" {
			continue
		}
		path = join(cwd, path)
		// The path of a descriptor, as of fexecve(3), leads to this program for ever.
		if !filepath.IsAbs(path) || strings.HasPrefix(path, "/proc/") || strings.HasPrefix(path, "/dev/fd/") {
			continue
		}
		if at, err := os.Stat(path); err == nil && os.SameFile(at, is) {
			return path
		}
	}
	return ""
}

// join returns path as seen from dir. A path with ".." stays as it is: after a link ".." is not the
// directory before it.
func join(dir, path string) string {
	if !filepath.IsAbs(path) {
		path = dir + string(filepath.Separator) + path
	}
	if strings.Contains(path, "..") {
		return path
	}
	return filepath.Clean(path)
}

// nameDir returns the name of the directory cwd, with links if cwd or the program's path has some.
func nameDir(cwd, program string) string {
	if real, err := filepath.EvalSymlinks(cwd); err != nil || real != filepath.Clean(cwd) {
		return cwd
	}
	return named(program, cwd)
}

// maxLinks bounds how many links of a file are followed, as path_resolution(7) does.
const maxLinks = 40

// named returns the name of path, which has no links, by the links on the way to to: if a link on
// this way leads to path, or to a directory above it, the name begins with that link.
//
//	named("/srv/app/current/bin/app", "/srv/app/releases/7") = "/srv/app/current"
func named(to, path string) string {
	for range maxLinks {
		for at := to; at != filepath.Dir(at); at = filepath.Dir(at) {
			real, err := filepath.EvalSymlinks(at)
			if err != nil || real == at {
				continue
			}
			if rel, err := filepath.Rel(real, path); err == nil && filepath.IsLocal(rel) {
				return filepath.Join(at, rel)
			}
		}
		next, err := os.Readlink(to)
		if err != nil {
			break
		}
		to = join(filepath.Dir(to), next)
	}
	return path
}
