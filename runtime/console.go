package coppice

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/coppice-go/coppice/runtime/internal/logqueue"
)

// console takes what Run and Main print: the tree, stacks, and why the program ends. It is standard
// error, or the log of a program whose output is made of records. Its methods may block.
type console struct {
	text io.Writer
	log  *slog.Logger // nil = text
}

// console returns where Run and Main print.
func (cfg Config) console() console {
	c := console{text: os.Stderr}
	plain := false
	switch to, _ := lineWriter(cfg.Output, cfg.Tags); to := to.(type) {
	case logOutput:
		c.log = to.log
	case ownStreams:
		plain = to.tags == TagLines
	case taggedText:
		plain = to.tags == TagLines
	}
	if plain {
		return c
	}
	if c.log == nil {
		c.log = cfg.defaults().Logger
	}
	c.text = logWriter{c.log}
	return c
}

// tree prints the tree: a line, or a record, for each child.
func (c console) tree(t Tree) error {
	if c.log == nil {
		_, err := fmt.Fprint(c.text, t)
		return err
	}
	t.log(c.log, "")
	return nil
}

// line prints what, and waits for that at most logqueue.FlushTimeout.
func (c console) line(what any) { logqueue.PrintLine(c.text, what) }

// logWriter makes a record of level Error of each text: its first line, and the rest as an
// attribute.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(b []byte) (int, error) {
	first, rest, _ := bytes.Cut(bytes.TrimSpace(b), []byte("\n"))
	var attrs []any
	if len(rest) > 0 {
		attrs = append(attrs, "output", string(rest))
	}
	w.log.Error(string(bytes.TrimPrefix(first, []byte("coppice: "))), attrs...)
	return len(b), nil
}

// log logs the tree below path, a record for each child.
func (t Tree) log(log *slog.Logger, path string) {
	switch {
	case path == "":
		path = t.Name
	case strings.Contains(t.Name, "/"): // a registered name, which has the path of its pool
		root, _, _ := strings.Cut(path, "/")
		path = root + "/" + t.Name
	default:
		path += "/" + t.Name
	}
	process := Identity{Name: t.Name, ID: t.ID, PID: t.PID, Incarnation: t.Incarnation, Generation: t.Generation}
	attrs := []any{"path", path, "role", t.Role, "state", t.State}
	if t.ID != 0 || t.PID != 0 {
		attrs = append(attrs, process.logGroup())
	}
	if t.Strategy != "" {
		attrs = append(attrs, "strategy", t.Strategy, "restarts_left", t.Budget-t.Used, "restarts", t.Budget)
	}
	if t.Since != nil {
		attrs = append(attrs, "since", *t.Since)
	}
	if t.LastExit != "" {
		attrs = append(attrs, "last_exit", t.LastExit)
	}
	for _, l := range t.Listeners {
		attrs = append(attrs, "addr", l.Addr)
	}
	log.Info("tree", attrs...)
	for _, c := range t.Children {
		c.log(log, path)
	}
}
