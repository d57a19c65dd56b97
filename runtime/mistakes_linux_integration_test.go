//go:build linux

package coppice_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mistakeMasks replace what differs between runs.
var mistakeMasks = []struct {
	re   *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\d{4}/\d\d/\d\d \d\d:\d\d:\d\d `), ""},
	{regexp.MustCompile(`\b(pid|took)=\S+`), "$1=…"},
	{regexp.MustCompile(`(127\.0\.0\.\d):[1-9]\d*`), "$1:…"},
	{regexp.MustCompile(`waited \d+(\.\d+)?m?s`), "waited …"},
	{regexp.MustCompile(`\| \t\S*/(\w+\.go):\d+$`), "| \t…/$1"}, // of a frame
	{regexp.MustCompile(`\.func\d+(\.\d+)*`), ".func"},
}

// TestMistakes: what programs say that make the usual mistakes. testdata/mistakes.golden has the
// log and, below it, the error of each. Mistakes are functions of testdata/mistakes, which each run
// as a program.
func TestMistakes(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds a program, which the race detector does not see")
	}
	dir, err := filepath.Abs("testdata/mistakes")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(dir + "/main_test.go")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "mistakes")
	overlay := program + ".json"
	if err := os.WriteFile(overlay, fmt.Appendf(nil, `{"Replace":{"%s/main.go":"%[1]s/main_test.go"}}`, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-overlay", overlay, "-o", program, "./testdata/mistakes").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := taken.Addr().String()
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "mistakes.golden")
	said := make(map[string]string)
	var names []string
	results, turn := make(chan [2]string), make(chan struct{}, 4) // a machine of few CPUs must start them in time
	for _, m := range regexp.MustCompile(`(?m)^\t"(.+)": func\(\) \{$`).FindAllSubmatch(source, -1) {
		name := string(m[1])
		names = append(names, name)
		go func() {
			turn <- struct{}{}
			results <- [2]string{name, runMistake(program, name, free)}
			<-turn
		}()
	}
	for range names {
		r := <-results
		said[r[0]] = r[1]
	}
	var got strings.Builder
	for _, name := range names {
		fmt.Fprintf(&got, "=== %s\n%s\n", name, said[name])
	}
	if flag.Lookup("rewrite").Value.String() == "true" {
		if err := os.WriteFile(golden, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]string)
	for _, part := range strings.Split(string(b), "=== ")[1:] {
		name, text, _ := strings.Cut(part, "\n")
		want[name] = strings.TrimSuffix(text, "\n")
	}
	for _, name := range names {
		if said[name] != want[name] {
			t.Errorf("%s\ngot:\n%s\nwant:\n%s", name, said[name], want[name])
		}
	}
}

// runMistake returns what the program says: the warnings and errors of its log, and below them why
// it ends. What children print is left out, because that has it.
func runMistake(program, name, address string) string {
	cmd := exec.Command(program, name)
	cmd.Env = append(os.Environ(), "ADDRESS="+address)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		return err.Error()
	}
	var log, last []string
	for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		switch {
		case len(last) > 0, strings.HasPrefix(line, "coppice: "):
			last = append(last, mask(line))
		case regexp.MustCompile(`^\d{4}/\d\d/\d\d \S+ (WARN|ERROR) `).MatchString(line):
			log = append(log, mask(line))
		}
	}
	return strings.Join(log, "\n") + fmt.Sprintf("\n--- exit code %d\n", code) + strings.Join(last, "\n") + "\n"
}

func mask(line string) string {
	for _, m := range mistakeMasks {
		line = m.re.ReplaceAllString(line, m.with)
	}
	return line
}
