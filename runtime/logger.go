package coppice

import (
	"log/slog"

	"github.com/coppice-go/coppice/runtime/internal/logqueue"
)

// queued returns cfg with a logger that never blocks, so that no part of the tree waits for
// Config.Logger.
func (cfg Config) queued() Config {
	if _, ok := cfg.Logger.Handler().(*logqueue.Handler); !ok {
		cfg.Logger = slog.New(logqueue.New(cfg.Logger.Handler()))
	}
	return cfg
}

// flushLog waits until the log is written, at most logqueue.FlushTimeout.
func flushLog(log *slog.Logger) {
	if h, ok := log.Handler().(*logqueue.Handler); ok {
		h.Flush(logqueue.FlushTimeout)
	}
}
