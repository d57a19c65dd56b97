package coppice

import (
	"context"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
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

	// Text is the line without its newline, as the process wrote it. A line of more than 8 KiB is
	// split into several OutputLines.
	Text string `json:"text"`
}

// String returns the tag, a bar and the text.
func (l OutputLine) String() string { return l.Tag() + "| " + l.Text }

// A LineWriter is a Config.Output that gets the lines as OutputLines, instead of their text behind
// a tag.
type LineWriter interface {
	// WriteLine is called by one goroutine of the master, one line at a time. It may block, see
	// Config.Output. If it returns an error, the line is lost and counted.
	WriteLine(OutputLine) error
}

// LogOutput returns a Config.Output that makes each line a log record: standard error at level
// Warn, standard output at Info.
func LogOutput(log *slog.Logger) io.Writer { return logOutput{log} }

type logOutput struct{ log *slog.Logger }

func (o logOutput) WriteLine(l OutputLine) error {
	level := slog.LevelInfo
	if l.Stream == output.Stderr {
		level = slog.LevelWarn
	}
	o.log.LogAttrs(context.Background(), level, l.Text,
		slog.String("name", l.Name), slog.Int("id", l.ID), slog.Int("pid", l.PID), slog.Int("incarnation", l.Incarnation),
		slog.Int("generation", l.Generation), slog.String("stream", l.Stream), slog.Time("at", l.Time))
	return nil
}

// Write makes b a record, for code that uses the result of LogOutput as a plain writer.
func (o logOutput) Write(b []byte) (int, error) {
	o.log.Info(string(b))
	return len(b), nil
}

// ownStreams writes lines to the master's own standard output and error, as these are at that time.
type ownStreams struct{}

func (ownStreams) WriteLine(l OutputLine) error {
	f := os.Stdout
	if l.Stream == output.Stderr {
		f = os.Stderr
	}
	return output.WriteRaw(f, append([]byte(l.String()), '\n'))
}

// taggedText makes a LineWriter of a plain writer: a line is one Write.
type taggedText struct{ dst io.Writer }

func (t taggedText) WriteLine(l OutputLine) error {
	_, err := t.dst.Write(append([]byte(l.String()), '\n'))
	return err
}

// lineWriter returns the LineWriter for a Config.Output.
func lineWriter(w io.Writer) LineWriter {
	switch w := w.(type) {
	case nil:
		return ownStreams{}
	case LineWriter:
		return w
	}
	return taggedText{w}
}

// newOutputQueue returns the queue of the lines for w.
func newOutputQueue(w LineWriter) *queue.Queue[output.Line] {
	return output.NewQueue(childproto.MasterName, func(l output.Line) error { return w.WriteLine(outputLine(l)) })
}

// outputLine converts a line.
func outputLine(l output.Line) OutputLine {
	who := Identity{Name: l.Name, Slot: l.Slot, ID: l.ID, PID: l.PID, Incarnation: l.Incarnation, Generation: l.Generation}
	return OutputLine{Time: l.Time, Identity: who, Stream: l.Stream, Text: l.Text}
}

// outputLines converts lines.
func outputLines(lines []output.Line) []OutputLine {
	converted := make([]OutputLine, len(lines))
	for i, l := range lines {
		converted[i] = outputLine(l)
	}
	return converted
}
