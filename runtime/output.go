package coppice

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/history"
	"github.com/coppice-go/coppice/runtime/internal/output"
	"github.com/coppice-go/coppice/runtime/internal/queue"
)

// outputFlush bounds how long the end of the tree waits for the last lines.
const outputFlush = time.Second

// OutputLine is one line that a process of the tree has printed.
type OutputLine struct {
	Time     time.Time `json:"time"`
	Identity           // of the process
	Stream   string    `json:"stream"` // stdout or stderr

	// Text is the line without its newline, as the process wrote it.
	Text string `json:"text"`

	// Piece is the number of this piece, from 1, of a line that is longer than Config.MaxLine; 0 =
	// the whole line. More says that the line goes on in the next OutputLine of the process and
	// stream.
	Piece int  `json:"piece,omitempty"`
	More  bool `json:"more,omitempty"`

	// Dump says that Text is what the process printed on standard error from its last words on, as
	// Exit.Words has them: several lines, at most 64 KiB. Only a LineWriter gets a dump whole.
	Dump bool `json:"dump,omitempty"`
}

// String returns the tag, a bar and the text.
func (l OutputLine) String() string { return l.Tag() + "| " + l.Text }

// Tags says where lines of text have the tag of their process, if Config.Output is no [LineWriter].
type Tags uint8

const (
	// TagAuto is TagFields if Output is nil and the program's standard error, or standard output,
	// is the journal's (JOURNAL_STREAM, systemd.exec(5)); otherwise what the environment variable
	// COPPICE_TAGS says to the program, for a reader of its output that wants it so: lines, fields
	// or none; otherwise TagLines.
	TagAuto Tags = iota

	// TagLines has the tag before each line.
	TagLines

	// TagFields leaves structured lines whole: a JSON object, and the logfmt of package slog, get
	// the process as one field more, {"process":{"name":"web/0","id":3,"pid":77, …}} and
	// process.name=web/0. A syslog priority, as <6>, stays before the tag (sd-daemon(3)). Other
	// lines are as with TagLines.
	TagFields

	// TagNone writes lines as the processes wrote them.
	TagNone
)

var tagsNames = []string{"auto", "lines", "fields", "none"}

// String returns the name that COPPICE_TAGS has for t.
func (t Tags) String() string {
	if int(t) < len(tagsNames) {
		return tagsNames[t]
	}
	return fmt.Sprintf("Tags(%d)", uint8(t))
}

// resolve returns what TagAuto stands for.
func (t Tags) resolve(to io.Writer, journal bool, variable string) Tags {
	if t != TagAuto {
		return t
	}
	if i := slices.Index(tagsNames, variable); i > 0 {
		return Tags(i)
	}
	if to == nil && journal {
		return TagFields
	}
	return TagLines
}

// text returns the line with its newline.
func (t Tags) text(l OutputLine) []byte {
	s := l.Text
	switch t {
	case TagAuto, TagLines:
		s = l.String()
	case TagFields:
		s = output.TagFields(l.Tag(), l.queued())
	case TagNone:
	}
	return append([]byte(s), '\n')
}

// A LineWriter is a Config.Output that gets the lines as OutputLines, instead of their text behind
// a tag.
type LineWriter interface {
	// WriteLine is called by one goroutine of the master, one line at a time. It may block, see
	// Config.Output. If it returns an error, the line is lost and counted.
	WriteLine(OutputLine) error
}

// LogOutput returns a Config.Output that makes each line a log record. A line that is a record of a
// log already keeps its time, level, message and attributes: JSON and logfmt with the field names
// of slog, zap, zerolog, logrus, pino or Bunyan, and what package slog writes by default. Other
// lines are messages of level Info, or of their syslog priority (<4>). A dump is one record of
// level Error with attribute dump. Each record has a group process with the name, id, pid,
// incarnation and generation of the process, and the stream. The messages of SIGUSR1, SIGQUIT and
// of the program's end that Run and Main would print go to log as well.
func LogOutput(log *slog.Logger) io.Writer { return logOutput{log} }

type logOutput struct{ log *slog.Logger }

func (o logOutput) WriteLine(l OutputLine) error {
	var r output.Record
	switch {
	case l.Dump:
		first, _, _ := strings.Cut(l.Text, "\n")
		r = output.Record{Level: slog.LevelError, Message: first, Attrs: []slog.Attr{slog.String("dump", l.Text)}}
	case l.Piece != 0:
		r.Message = l.Text
	default:
		r = output.Parse(l.Text)
	}
	ctx := context.Background()
	if !o.log.Enabled(ctx, r.Level) {
		return nil
	}
	if r.Time.IsZero() {
		r.Time = l.Time
	}
	rec := slog.NewRecord(r.Time, r.Level, r.Message, 0)
	rec.AddAttrs(r.Attrs...)
	if l.Piece != 0 {
		rec.AddAttrs(slog.Int("piece", l.Piece), slog.Bool("more", l.More))
	}
	rec.AddAttrs(l.logGroup(), slog.String("stream", l.Stream))
	return o.log.Handler().Handle(ctx, rec)
}

// Write makes b a record, for code that uses the result of LogOutput as a plain writer.
func (o logOutput) Write(b []byte) (int, error) {
	o.log.Info(string(b))
	return len(b), nil
}

// ownStreams writes lines to the master's own standard output and error, as these are at that time.
type ownStreams struct{ tags Tags }

func (o ownStreams) WriteLine(l OutputLine) error {
	f := os.Stdout
	if l.Stream == output.Stderr {
		f = os.Stderr
	}
	return output.WriteRaw(f, o.tags.text(l))
}

// taggedText makes a LineWriter of a plain writer: a line is one Write.
type taggedText struct {
	dst  io.Writer
	tags Tags
}

func (t taggedText) WriteLine(l OutputLine) error {
	_, err := t.dst.Write(t.tags.text(l))
	return err
}

// lineWriter returns the LineWriter for a Config.Output, and whether it takes dumps whole.
func lineWriter(w io.Writer, t Tags) (to LineWriter, dumps bool) {
	t = t.resolve(w, toJournal(), os.Getenv("COPPICE_TAGS"))
	switch w := w.(type) {
	case nil:
		return ownStreams{t}, false
	case LineWriter:
		return w, true
	}
	return taggedText{w, t}, false
}

// newOutputQueue returns the queue of the lines for w, of which none is longer than maxLine. The
// latest are kept.
func newOutputQueue(w LineWriter, keep *history.Log[OutputLine], maxLine int) *queue.Queue[output.Line] {
	return output.NewQueue(childproto.MasterName, maxLine, func(l output.Line) error {
		line := outputLine(l)
		keep.Put(line)
		return w.WriteLine(line)
	})
}

// maxLines and maxLineBytes bound the lines that are kept for operators.
const (
	maxLines     = 4096
	maxLineBytes = 1 << 20
)

// newLineLog returns the log of the lines that are kept.
func newLineLog() *history.Log[OutputLine] {
	return history.New(maxLines, maxLineBytes, func(l OutputLine) int { return 128 + len(l.Text) })
}

// queued returns the line as the queue has it.
func (l OutputLine) queued() output.Line {
	return output.Line{
		Time: l.Time, Name: l.Name, Slot: l.Slot, ID: l.ID, PID: l.PID, Incarnation: l.Incarnation, Generation: l.Generation,
		Stream: l.Stream, Text: l.Text, Piece: l.Piece, More: l.More, Dump: l.Dump,
	}
}

// outputLine converts a line.
func outputLine(l output.Line) OutputLine {
	process := Identity{Name: l.Name, Slot: l.Slot, ID: l.ID, PID: l.PID, Incarnation: l.Incarnation, Generation: l.Generation}
	return OutputLine{Time: l.Time, Identity: process, Stream: l.Stream, Text: l.Text, Piece: l.Piece, More: l.More, Dump: l.Dump}
}

// outputLines converts lines.
func outputLines(lines []output.Line) []OutputLine {
	converted := make([]OutputLine, len(lines))
	for i, l := range lines {
		converted[i] = outputLine(l)
	}
	return converted
}
