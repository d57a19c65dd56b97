package coppice

import (
	"errors"
	"os"

	"github.com/coppice-go/coppice/runtime/internal/child"
	"github.com/coppice-go/coppice/runtime/internal/logqueue"
)

// runChild runs a child process from its start to its exit. It returns only when the child cannot
// begin.
func runChild(cfg child.Config, channel *os.File) error {
	code, last, err := child.RunProcess(cfg, channel)
	if errors.Is(err, child.ErrBegun) {
		return ErrInChild
	}
	if err != nil {
		return err
	}
	flushLog(cfg.Logger)
	if last != "" {
		logqueue.PrintLine(os.Stderr, last)
	}
	os.Exit(code)
	return nil
}
