package started

import (
	"os"
	"path/filepath"
	"testing"
)

func init() { Capture() }

// releases makes the directory of a program that is deployed by a link, and leads current to 1.
func releases(t *testing.T) (base string) {
	t.Helper()
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []string{"1", "2"} {
		if err := os.MkdirAll(filepath.Join(base, "releases", r, "bin"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(base, "releases", r, "bin", "app"), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"current": "releases/1", "app": "current/bin/app", "abs": base + "/current/bin/app", "loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(base, link)); err != nil {
			t.Fatal(err)
		}
	}
	return base
}

// TestNamed: a directory gets its name from the links on the way to the program.
func TestNamed(t *testing.T) {
	base := releases(t)
	for _, tt := range []struct{ to, path, want string }{
		{"current/bin/app", "releases/1", "current"},
		{"current/bin/app", "releases/1/bin", "current/bin"},
		{"app", "releases/1", "current"}, // a link to a path with a link
		{"abs", "releases/1/bin", "current/bin"},
		{"current/bin/app", "releases/2", "releases/2"}, // of another release
		{"releases/1/bin/app", "releases/1", "releases/1"},
		{"current/../current/bin/app", "releases/1", "current"},
		{"loop", "releases/1", "releases/1"},
		{"nothing", "releases/1", "releases/1"},
		{"current", "releases/1/bin/app", "current/bin/app"}, // a program, by the name of the directory
	} {
		if got := named(base+"/"+tt.to, filepath.Join(base, tt.path)); filepath.Clean(got) != filepath.Join(base, tt.want) {
			t.Errorf("%s on the way to %s is %s, want %s", tt.path, tt.to, got, tt.want)
		}
	}
	if got, want := nameDir(base+"/current", base+"/app"), base+"/current"; got != want {
		t.Errorf("the name %s became %s", want, got)
	}
}

// TestFindProgram: the path of the exec, then argv[0], and neither if it leads to another program.
func TestFindProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/bin:/usr/bin")
	for _, tt := range []struct{ name, execPath, argv0, want string }{
		{"absolute", link, link, link},
		{"exec -a name", link, "myservice", link},
		{"exec -a /bin/sh", link, "/bin/sh", link},
		{"relative", "./link", "./link", link},
		{"by PATH, unknown to the kernel", "", "link", link},
		{"by a descriptor", "/proc/self/exe", link, link},
		{"by a descriptor, and exec -a name", "/proc/self/exe", "myservice", ""},
		{"another program of that name", "/proc/self/fd/999", "/bin/sh", ""},
	} {
		if got := findProgram(dir, tt.execPath, tt.argv0); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestIn: a program that changes its directory has children that start in the original one; the
// name of that is followed anew each time.
func TestIn(t *testing.T) {
	base := releases(t)
	t.Chdir(base + "/current")
	start := base + "/current"
	check := func(when string, want map[string]string) {
		t.Helper()
		for dir, want := range want {
			if got := In(start, dir); got != want {
				t.Errorf("%s: Dir %q is %q, want %q", when, dir, got, want)
			}
		}
	}
	check("nothing has changed", map[string]string{"": "", "bin": "bin", "/": "/"})
	if err := os.Remove(start); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("releases/2", start); err != nil {
		t.Fatal(err)
	}
	check("another release", map[string]string{"": start, "bin": start + "/bin", "/": "/"})
	t.Chdir("/")
	check("elsewhere", map[string]string{"": start, "bin": start + "/bin", "/": "/"})
}

// TestStarted: this test's own start.
func TestStarted(t *testing.T) {
	was, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if !IsHere() || Dir() == "" {
		t.Errorf("not in %q", Dir())
	}
	t.Chdir(t.TempDir())
	if IsHere() || Dir() != was {
		t.Errorf("started in %q, want %q", Dir(), was)
	}
	args, first := os.Args, os.Args[0]
	defer func() { os.Args, args[0] = args, first }()
	args[0], os.Args = "changed", nil
	if got := Args(); got[0] != first {
		t.Errorf("the arguments are %q", got)
	}
	if path, err := Program(); err != nil || !filepath.IsAbs(path) {
		t.Errorf("program %q: %v", path, err)
	}
}
