package coppice

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/runtime/internal/output"
)

// TestLogOutput: each line is a record with the name of its process.
func TestLogOutput(t *testing.T) {
	var b bytes.Buffer
	w := lineWriter(LogOutput(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "at" {
			return slog.Attr{}
		}
		return a
	}}))))
	line := OutputLine{Identity: Identity{Name: "web/0", ID: 3, PID: 77, Incarnation: 2, Generation: 1}, Stream: output.Stdout, Text: "hello, world"}
	if err := w.WriteLine(line); err != nil {
		t.Error(err)
	}
	line.Stream = output.Stderr
	if err := w.WriteLine(line); err != nil {
		t.Error(err)
	}
	want := `level=INFO msg="hello, world" name=web/0 id=3 pid=77 incarnation=2 generation=1 stream=stdout
level=WARN msg="hello, world" name=web/0 id=3 pid=77 incarnation=2 generation=1 stream=stderr
`
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

// TestOwnStreams: without a Config.Output the standard output of a process appears at the master's,
// and likewise its standard error. A standard output that has lost its reader costs the lines, not
// the master. The test starts itself to have separate streams.
func TestOwnStreams(t *testing.T) {
	const again = "COPPICE_TEST_STREAMS"
	if os.Getenv(again) != "" {
		own := lineWriter(nil)
		for _, stream := range []string{output.Stderr, output.Stdout, output.Stderr} {
			err := own.WriteLine(OutputLine{Identity: Identity{Name: "web/0", ID: 3, Generation: 1}, Stream: stream, Text: "to " + stream})
			if errors.Is(err, syscall.EPIPE) {
				err = own.WriteLine(OutputLine{Identity: Identity{Name: "broken pipe"}, Stream: output.Stderr})
			}
			if err != nil {
				os.Exit(9)
			}
		}
		os.Exit(7)
	}
	for _, broken := range []bool{false, true} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if broken {
			r.Close()
		}
		var stderr bytes.Buffer
		cmd := exec.Command(os.Args[0], "-test.run=^TestOwnStreams$")
		cmd.Env = append(os.Environ(), again+"=1")
		cmd.Stdout, cmd.Stderr = w, &stderr
		_ = cmd.Run()
		w.Close()
		if code := cmd.ProcessState.ExitCode(); code != 7 {
			t.Errorf("broken %v: ended by %v", broken, cmd.ProcessState)
		}
		middle := "web/0#3 g1| to stderr\n"
		if broken {
			middle = "broken pipe| \n" + middle
		} else {
			out := make([]byte, 100)
			n, err := r.Read(out)
			if got := string(out[:n]); err != nil || got != "web/0#3 g1| to stdout\n" {
				t.Errorf("standard output %q, error %v", got, err)
			}
			r.Close()
		}
		if got := regexp.MustCompile(`(?m)^warning: .*\n`).ReplaceAllString(stderr.String(), ""); got != "web/0#3 g1| to stderr\n"+middle {
			t.Errorf("broken %v: standard error %q", broken, strings.TrimSpace(got))
		}
	}
}
