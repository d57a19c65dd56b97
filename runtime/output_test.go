package coppice

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/runtime/internal/output"
)

// TestLogOutput: each line is a record with its process; one that is a record already keeps its
// level and its attributes, and a dump is one record.
func TestLogOutput(t *testing.T) {
	var b bytes.Buffer
	w, _ := lineWriter(LogOutput(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))), TagAuto)
	line := OutputLine{Identity: Identity{Name: "web/0", ID: 3, PID: 77, Incarnation: 2, Generation: 1}, Stream: output.Stderr}
	for _, text := range []string{
		"hello, world",
		`{"time":"2026-11-29T15:04:05Z","level":"INFO","msg":"resized","id":"order-7","size":{"w":3}}`,
		`time=2026-11-29T15:04:05Z level=WARN msg="disk full" path=/var`,
		"2026/11/29 15:04:05 ERROR no database tries=3",
		"<7>detail",
	} {
		line.Text = text
		if err := w.WriteLine(line); err != nil {
			t.Error(err)
		}
	}
	line.Text, line.Piece, line.More = `{"level":"INFO","msg":"too lo`, 1, true
	if err := w.WriteLine(line); err != nil {
		t.Error(err)
	}
	line.Text, line.Piece, line.More, line.Dump = "panic: boom\n\ngoroutine 1 [running]:", 0, false, true
	if err := w.WriteLine(line); err != nil {
		t.Error(err)
	}
	const of = ` process.name=web/0 process.id=3 process.pid=77 process.incarnation=2 process.generation=1 stream=stderr`
	want := `level=INFO msg="hello, world"` + of + `
level=INFO msg=resized id=order-7 size="{\"w\":3}"` + of + `
level=WARN msg="disk full" path=/var` + of + `
level=ERROR msg="no database tries=3"` + of + `
level=DEBUG msg=detail` + of + `
level=INFO msg="{\"level\":\"INFO\",\"msg\":\"too lo" piece=1 more=true` + of + `
level=ERROR msg="panic: boom" dump="panic: boom\n\ngoroutine 1 [running]:"` + of + `
`
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

// TestTags: where the tag of a line of text stands.
func TestTags(t *testing.T) {
	line := OutputLine{Identity: Identity{Name: "web/0", ID: 3, PID: 77, Incarnation: 2, Generation: 1}, Stream: output.Stdout}
	const of, tag = `"process":{"name":"web/0","id":3,"pid":77,"incarnation":2,"generation":1}`, "web/0#3 g1| "
	for _, tt := range []struct{ text, fields string }{
		{`{"msg":"m"}`, `{"msg":"m",` + of + `}`},
		{`{}`, `{` + of + `}`},
		{`<6>{"msg":"m"}`, `<6>{"msg":"m",` + of + `}`},
		{`{"msg":"m"`, tag + `{"msg":"m"`},
		{`<3>no disk`, `<3>` + tag + `no disk`},
		{`level=INFO msg=m a="b c"`, `level=INFO msg=m a="b c" process.name=web/0 process.id=3 process.pid=77 process.incarnation=2 process.generation=1`},
		{`hello`, tag + `hello`},
		{``, tag},
	} {
		line.Text = tt.text
		for tags, want := range map[Tags]string{TagLines: tag + tt.text, TagFields: tt.fields, TagNone: tt.text} {
			if got := string(tags.text(line)); got != want+"\n" {
				t.Errorf("%v: got %q, want %q", tags, got, want)
			}
		}
	}
	line.Text, line.Piece = `{}`, 2
	if got := string(TagFields.text(line)); got != tag+"{}\n" {
		t.Errorf("a piece: %q", got)
	}
}

// TestTagsByDefault: tags stand in the lines for the journal, and where COPPICE_TAGS says so.
func TestTagsByDefault(t *testing.T) {
	for _, tt := range []struct {
		set      Tags
		to       io.Writer
		journal  bool
		variable string
		want     Tags
	}{
		{want: TagLines},
		{journal: true, want: TagFields},
		{journal: true, to: io.Discard, want: TagLines},
		{journal: true, variable: "lines", want: TagLines},
		{to: io.Discard, variable: "fields", want: TagFields},
		{variable: "none", want: TagNone},
		{variable: "auto", want: TagLines},
		{variable: "loud", want: TagLines},
		{set: TagLines, journal: true, variable: "none", want: TagLines},
	} {
		if got := tt.set.resolve(tt.to, tt.journal, tt.variable); got != tt.want {
			t.Errorf("%+v: got %v", tt, got)
		}
	}
	if w, dumps := lineWriter(io.Discard, TagNone); w != (taggedText{io.Discard, TagNone}) || dumps {
		t.Errorf("%v, %v", w, dumps)
	}
	if _, dumps := lineWriter(LogOutput(slog.Default()), TagAuto); !dumps {
		t.Error("a LineWriter gets no dumps")
	}
}

// TestOwnStreams: without a Config.Output the standard output of a process appears at the master's,
// and likewise its standard error. A standard output that has lost its reader costs the lines, not
// the master. The test starts itself to have separate streams.
func TestOwnStreams(t *testing.T) {
	const again = "COPPICE_TEST_STREAMS"
	if os.Getenv(again) != "" {
		own, _ := lineWriter(nil, TagAuto)
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
