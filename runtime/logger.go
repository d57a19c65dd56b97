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

// setLogLevel sets the level of the tree's log; nil = that of Config.Logger.
func setLogLevel(log *slog.Logger, level *slog.Level) error {
	h, ok := log.Handler().(*logqueue.Handler)
	if !ok {
		return ErrUnsupported
	}
	h.SetLevel(level)
	return nil
}

// logLevel returns the level that setLogLevel has set; "" = none.
func logLevel(log *slog.Logger) string {
	if h, ok := log.Handler().(*logqueue.Handler); ok && h.Level() != nil {
		return h.Level().String()
	}
	return ""
}

// flushLog waits until the log is written, at most logqueue.FlushTimeout.
func flushLog(log *slog.Logger) {
	if h, ok := log.Handler().(*logqueue.Handler); ok {
		h.Flush(logqueue.FlushTimeout)
	}
}
