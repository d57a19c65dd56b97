package coppice

import (
	"log/slog"

	"github.com/coppice-go/coppice/runtime/internal/logqueue"
)

// queued returns a logger that never blocks, so that no part of the tree waits for Config.Logger.
func queued(log *slog.Logger) *slog.Logger {
	if _, ok := log.Handler().(*logqueue.Handler); ok {
		return log
	}
	return slog.New(logqueue.New(log.Handler()))
}

// flushLog waits until the log is written, at most logqueue.FlushTimeout.
func flushLog(log *slog.Logger) {
	if h, ok := log.Handler().(*logqueue.Handler); ok {
		h.Flush(logqueue.FlushTimeout)
	}
}
