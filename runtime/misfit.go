package coppice

import (
	"errors"
	"log/slog"
	"time"
)

// errMisfit is wrapped by the error of a start whose process ran the program, but not as a child of
// the tree: the program has no such pool, or it ended before it called Main. A replacement runs the
// program that its predecessor ran. So something has changed that main reads, and may change back;
// the worker's code has not failed.
var errMisfit = errors.New("coppice: it cannot be a child of the tree")

func isMisfit(err error) bool { return errors.Is(err, errMisfit) }

// newMisfits returns the retries of starts that made a misfit.
func newMisfits(log *slog.Logger) *retries {
	return &retries{
		log: log, wait: isMisfit, max: 5 * time.Second,
		began: "the program cannot be the worker that it was: its start is tried again, and counts in no budget. What its main reads may have changed",
		over:  "workers can start again, or no start waits for that",
	}
}
