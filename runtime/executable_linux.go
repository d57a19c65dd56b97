package coppice

import (
	"context"

	"github.com/coppice-go/coppice/runtime/internal/process"
)

// executable is the program file of a generation, held open.
type executable = process.Executable

func openExecutable() (*executable, error) { return process.Self() }

func executableAt(ctx context.Context, path string) (*executable, error) {
	ctx, cancel := context.WithTimeout(ctx, defaultStartTimeout)
	defer cancel()
	return process.Apart(ctx, path, func(at *process.Look) (*executable, error) {
		at.At("program " + path)
		return process.OpenExecutable(path)
	})
}
