package coppice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"syscall"

	"github.com/coppice-go/coppice/fdipc"
)

// processBody is a child that is a process of its own, and what it prints.
type processBody struct {
	rt     *Runtime
	proc   *osProcess
	stdout *lines
	stderr *lines
	ended  chan struct{}
}

// fork starts p as a process: this program once more.
func (rt *Runtime) fork(p *peer) error {
	local, remote, err := fdipc.Socketpair()
	if err != nil {
		return err
	}
	b, err := rt.spawn(command{
		path: rt.exe.path(), argv: os.Args, env: os.Environ(), channel: remote,
		deathSig: syscall.SIGTERM, // workers drain when the master is gone
	}, fmt.Sprintf("%s#%d", p.welcome.Name, p.welcome.ID))
	if err != nil {
		return errors.Join(err, local.Close())
	}
	p.body = b
	if p.conn, err = fdipc.New(local, p.transport()); err != nil {
		b.kill()
		<-b.done()
	}
	return err
}

// forkForeign starts another program.
func (rt *Runtime) forkForeign(p Process, name string) (*processBody, error) {
	path, err := exec.LookPath(p.Command[0])
	if err != nil {
		return nil, fmt.Errorf("coppice: start %s: %w", name, err)
	}
	return rt.spawn(command{
		path: path, argv: p.Command, env: append(os.Environ(), p.Env...), dir: p.Dir,
		deathSig: syscall.SIGKILL,
	}, name)
}

// spawn starts cmd with its output read, each line behind tag.
func (rt *Runtime) spawn(cmd command, tag string) (*processBody, error) {
	outR, outW, err := outputPipe()
	if err != nil {
		closeAll(cmd.channel)
		return nil, err
	}
	errR, errW, err := outputPipe()
	if err != nil {
		closeAll(cmd.channel, outR, outW)
		return nil, err
	}
	cmd.stdout, cmd.stderr = outW, errW
	proc, err := start(cmd)
	if err != nil {
		closeAll(outR, errR)
		return nil, err
	}
	write := func(line []byte) { rt.output.line(tag, line) }
	b := &processBody{
		rt: rt, proc: proc, ended: make(chan struct{}),
		stdout: readLines(outR, write), stderr: readLines(errR, write),
	}
	go b.wait() // ends with the process
	return b, nil
}

func (b *processBody) wait() {
	defer close(b.ended)
	<-b.proc.done
	finish(b.stdout, b.stderr)
}

func (b *processBody) pid() int              { return b.proc.pid }
func (b *processBody) done() <-chan struct{} { return b.ended }

func (b *processBody) exit() Exit {
	e := b.proc.exit
	if e.Code != 0 {
		e.Words = b.stderr.lastWords()
	}
	return e
}

func (b *processBody) leaked() <-chan struct{} { return nil }

func (b *processBody) terminate() { b.signal(syscall.SIGTERM) }
func (b *processBody) kill()      { b.signal(syscall.SIGKILL) }

func (b *processBody) signal(sig syscall.Signal) {
	if err := b.proc.signalGroup(sig); err != nil {
		b.rt.log.LogAttrs(context.Background(), slog.LevelError, "signal failed",
			slog.Int("pid", b.proc.pid), slog.String("signal", sig.String()), slog.Any("err", err))
	}
}
