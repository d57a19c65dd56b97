package coppice

import (
	"context"
	"errors"
	"fmt"

	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/runtime/internal/started"
)

// executable is the program file of a generation, held open.
type executable = process.Executable

// openExecutable opens the program that runs, and the directory in which it was started.
func openExecutable() (*executable, error) {
	exe, err := process.Self()
	if err != nil {
		return nil, err
	}
	if started.IsHere() { // whatever its name leads to now
		err = exe.StartIn(".")
	} else if dir := started.Dir(); dir != "" {
		err = exe.StartIn(dir)
	}
	return withDirectory(exe, err)
}

// executableAt opens the program at path, and the directory that the name of the one in which this
// program was started leads to now: a link may lead to another release.
func executableAt(ctx context.Context, path string) (*executable, error) {
	ctx, cancel := context.WithTimeout(ctx, defaultStartTimeout)
	defer cancel()
	return process.Apart(ctx, path, func(at *process.Look) (*executable, error) {
		at.At("program " + path)
		exe, err := process.OpenExecutable(path)
		if err != nil {
			return nil, err
		}
		at.At("the directory in which this program was started, " + started.Dir())
		if dir := started.Dir(); dir != "" {
			err = exe.StartIn(dir)
		}
		if started.IsHere() && (err != nil || started.Dir() == "") { // it has no name any more
			err = exe.StartIn(".")
		}
		return withDirectory(exe, err)
	})
}

// withDirectory returns exe, or closes it if err says that its directory could not be opened.
func withDirectory(exe *executable, err error) (*executable, error) {
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the directory in which this program was started: %w", err), exe.Close())
	}
	return exe, nil
}
