package docs_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// unitComment begins a unit in systemd.md, with the version that it needs.
var unitComment = regexp.MustCompile(`^    # /etc/systemd/system/([a-z]+\.[a-z]+)(?:, systemd (\d+))?$`)

// documentedUnits returns the units of systemd.md that a version of systemd knows, by name and
// place.
func documentedUnits(t *testing.T, version int) (units []map[string]string) {
	t.Helper()
	b, err := os.ReadFile("systemd.md")
	if err != nil {
		t.Fatal(err)
	}
	name := ""
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\n")
		if m := unitComment.FindStringSubmatch(line); m != nil {
			name = m[1]
			if needs, _ := strconv.Atoi(m[2]); needs > version {
				name = ""
				continue
			}
			units = append(units, map[string]string{name: ""})
			continue
		}
		text, indented := strings.CutPrefix(line, "    ")
		switch {
		case name == "":
		case indented || line == "":
			units[len(units)-1][name] += text + "\n"
		default:
			name = ""
		}
	}
	return units
}

// TestSystemdUnits: systemd accepts the units of systemd.md that its version is to know, without a
// warning.
func TestSystemdUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	out, err := exec.Command(analyze, "--version").Output()
	if err != nil {
		t.Skip(err)
	}
	version := 0
	if _, err := fmt.Sscanf(string(out), "systemd %d", &version); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	units := documentedUnits(t, version)
	if len(units) < 2 {
		t.Fatalf("systemd.md has %d units", len(units))
	}
	service := "" // which a socket needs
	for _, unit := range units {
		for name, text := range unit {
			dir := t.TempDir()
			text = strings.ReplaceAll(text, "/usr/local/bin/hello", self)
			if strings.HasSuffix(name, ".service") {
				service = text
			}
			paths := []string{filepath.Join(dir, "hello.service")}
			if err := os.WriteFile(paths[0], []byte(service), 0o644); err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(name, ".service") {
				paths = append(paths, filepath.Join(dir, name))
				if err := os.WriteFile(paths[1], []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			said, err := exec.Command(analyze, append([]string{"verify", "--man=no"}, paths...)...).CombinedOutput()
			if err != nil || bytes.Contains(said, []byte(dir)) {
				t.Errorf("%s: %v\n%s\n%s", name, err, said, text)
			}
		}
	}
}
