package wall

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// TestNames: the names and numbers of system calls are those of golang.org/x/sys/unix, for each
// architecture, and each name in a profile is one of them.
func TestNames(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"open_by_handle": true}
	for _, goarch := range []string{"amd64", "arm64"} {
		source, err := os.ReadFile("names_linux_" + goarch + ".go")
		if err != nil {
			t.Fatal(err)
		}
		_, text, _ := strings.Cut(string(source), "`")
		own, newer := strings.Fields(strings.TrimSuffix(strings.TrimSpace(text), "`")), strings.Fields(newer)
		b, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "unix", "zsysnum_linux_"+goarch+".go"))
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for _, m := range regexp.MustCompile(`SYS_(\w+)\s+= (\d+)`).FindAllStringSubmatch(string(b), -1) {
			n, _ := strconv.Atoi(m[2])
			got, name := "", strings.ToLower(m[1])
			if name == "fstatat" {
				name = "newfstatat" // on arm64
			}
			switch {
			case n < len(own):
				got = own[n]
			case n-firstNewer < len(newer) && n >= firstNewer:
				got = newer[n-firstNewer]
			}
			if got != name {
				t.Errorf("%s: %d is %q, want %q", goarch, n, got, name)
			}
			known[name] = true
			seen++
		}
		if all := len(own) + len(newer) - strings.Count(text, " -"); seen != all {
			t.Errorf("%s: %d names, want %d", goarch, all, seen)
		}
	}
	for name := range profiles["service"]() {
		if !known[name] {
			t.Errorf("the profiles have %q", name)
		}
	}
	if runtime.GOARCH == "amd64" && (Name(41) != "socket" || Name(435) != "clone3" || Name(1<<40) != "") {
		t.Error("Name is wrong")
	}
}

// TestOldKernel: what the kernel's Landlock cannot do is an error that names the field, or by
// choice missing.
func TestOldKernel(t *testing.T) {
	if _, err := version(); err != nil {
		t.Skip(err)
	}
	defer func(v func() (int, error)) { version = v }(version)
	for _, tt := range []struct {
		version int
		lack    string
	}{{2, "NoFiles"}, {3, "NoTCP"}, {5, "Scoped"}} {
		version = func() (int, error) { return tt.version, nil }
		s := Rules{NoFiles: tt.version == 2, NoTCP: tt.version == 3, Scoped: tt.version == 5}
		if _, err := s.Build(); err == nil || !strings.HasPrefix(err.Error(), tt.lack+": ") {
			t.Errorf("version %d: %v", tt.version, err)
		}
		s.BestEffort = true
		w, err := s.Build()
		if err != nil || len(w.Lacks) != 1 || !strings.HasPrefix(w.Lacks[0], tt.lack+": ") {
			t.Errorf("version %d: %v, %+v", tt.version, err, w)
		}
		w.Close()
	}
}
