package coppice

import (
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/logqueue"
)

// logFlush bounds how long the end of the tree, or of a child, waits until what it has
// logged is written, and how long the end of the program waits for its last words.
const logFlush = time.Second

// queued returns cfg with a logger that never blocks: nothing that decides waits for
// Config.Logger.
func (cfg Config) queued() Config {
	if _, ok := cfg.Logger.Handler().(*logqueue.Handler); !ok {
		cfg.Logger = slog.New(logqueue.New(cfg.Logger.Handler()))
	}
	return cfg
}

// flushLog waits until what was logged is written, at most logFlush.
func flushLog(log *slog.Logger) {
	if h, ok := log.Handler().(*logqueue.Handler); ok {
		h.Flush(logFlush)
	}
}

// printLine prints to w, which may be stuck: it waits for that no longer than logFlush.
func printLine(w io.Writer, what any) {
	done := make(chan struct{})
	go func() { // ends when it has printed, or with the program
		defer close(done)
		fmt.Fprintln(w, what)
	}()
	timer := time.NewTimer(logFlush)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
