package coppice

import (
	"errors"
	"fmt"
	"os"

	"github.com/coppice-go/coppice/runtime/internal/cgroup"
	"github.com/coppice-go/coppice/runtime/internal/handover"
	"github.com/coppice-go/coppice/runtime/internal/process"
)

// takeOver makes a process that the image before has started one of this image. It is not waited
// for, and its output is not read, until the end of the trial.
func (s spawner) takeOver(in *inheritance, before handover.RunningProcess, how spawnRequest) (*processChild, error) {
	files, err := in.files(before.Files)
	fail := func(err error) (*processChild, error) {
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	if len(files) != before.Descriptors() {
		return fail(fmt.Errorf("it has %d descriptors, want %d", len(files), before.Descriptors()))
	}
	proc, err := process.Restore(before.State, files[0])
	if err != nil {
		return fail(err)
	}
	b := s.watch(proc, before.Began, how, cgroup.At(before.Cgroup))
	b.former = in
	b.outPiece, b.errPiece = before.OutPiece, before.ErrPiece
	b.sigs.Store(before.Sent)
	pipes := files[1:]
	pipe := func(s process.LinesState) (f *os.File) {
		if !s.Ended {
			f = pipes[0]
			pipes = pipes[1:]
		}
		return f
	}
	b.stdout, err = process.RestoreLines(before.Stdout, pipe(before.Stdout), s.maxLine, b.takeStdout)
	if err != nil {
		return fail(err)
	}
	b.stderr, err = process.RestoreLines(before.Stderr, pipe(before.Stderr), s.maxLine, b.takeStderr)
	if err != nil {
		return fail(err)
	}
	in.afterTrial(func() {
		b.stdout.Resume()
		b.stderr.Resume()
		proc.Resume()
	})
	return b, nil
}
