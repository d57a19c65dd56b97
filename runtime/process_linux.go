package coppice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/process"
)

// channelFD is the number that the channel has in a child. Not 3, which is
// where LISTEN_FDS starts (sd_listen_fds(3)).
const channelFD = 10

// executable is the program file of a generation, held open.
type executable = process.Executable

func openExecutable() (*executable, error) { return process.Self() }

// processBody is a child that is a process of its own, and what it prints.
type processBody struct {
	rt     *Runtime
	proc   *process.Process
	grace  time.Duration // of its group, once its leader has ended
	stdout *process.Lines
	stderr *process.Lines
	words  process.LastWords // of stderr
	oom    process.OOMGauge
	sigs   atomic.Uint64 // sent by us while it lived: a signals
	ended  chan struct{}
	at     time.Time     // when it ended; set before ended
	killed chan struct{} // closed when its group has got SIGKILL
	once   sync.Once     // closes killed
}

// fork starts p as a process: this program once more.
func (rt *Runtime) fork(p *peer) error {
	local, remote, err := fdipc.Socketpair()
	if err != nil {
		return err
	}
	defer remote.Close()
	b, err := rt.spawn(process.Command{
		Executable: rt.exe, Args: os.Args, Env: append(os.Environ(), fdipc.Environ(channelFD, nil)...),
		Files:       slices.Insert(make([]*os.File, channelFD), channelFD, remote),
		DeathSignal: syscall.SIGTERM, // workers drain when the master is gone
	}, fmt.Sprintf("%s#%d", p.welcome.Name, p.welcome.ID), groupGrace)
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
	return rt.spawn(process.Command{
		Path: path, Args: p.Command, Env: append(os.Environ(), p.Env...), Dir: p.Dir,
		Files:       make([]*os.File, 3),
		DeathSignal: syscall.SIGKILL,
	}, name, groupGrace)
}

// spawn starts cmd with the null device as its input and its output read, each
// line behind tag. The first three of cmd.Files are filled in.
func (rt *Runtime) spawn(cmd process.Command, tag string, grace time.Duration) (*processBody, error) {
	stdin, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	outR, outW, err := process.OutputPipe()
	if err != nil {
		return nil, err
	}
	defer outW.Close()
	errR, errW, err := process.OutputPipe()
	if err != nil {
		return nil, errors.Join(err, outR.Close())
	}
	defer errW.Close()
	cmd.Files[0], cmd.Files[1], cmd.Files[2] = stdin, outW, errW
	proc, err := process.Start(cmd)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("coppice: %w", err), outR.Close(), errR.Close())
	}
	b := &processBody{rt: rt, proc: proc, oom: process.GaugeOOM(proc.PID()), grace: grace, ended: make(chan struct{}), killed: make(chan struct{})}
	b.stdout = process.ReadLines(outR, func(line []byte) { rt.output.line(tag, line) })
	b.stderr = process.ReadLines(errR, func(line []byte) {
		b.words.Note(time.Now(), line)
		rt.output.line(tag, line)
	})
	go b.wait() // ends with the process
	return b, nil
}

func (b *processBody) wait() {
	defer close(b.ended)
	<-b.proc.Done()
	b.at = time.Now()
	b.endGroup()
	process.Finish(b.stdout, b.stderr)
	if err := b.proc.Close(); err != nil {
		b.rt.log.LogAttrs(context.Background(), slog.LevelError, "close a pidfd", slog.Int("pid", b.pid()), slog.Any("err", err))
	}
}

func (b *processBody) pid() int              { return b.proc.PID() }
func (b *processBody) done() <-chan struct{} { return b.ended }

func (b *processBody) exit() Exit {
	e := exitOf(b.proc.PID(), b.proc.Exit())
	if e.Code != 0 {
		e.Words, _, _ = b.words.Said(b.at)
	}
	if e.Signal == syscall.SIGKILL && !b.sent().has(syscall.SIGKILL) {
		switch b.oom.Verdict() {
		case process.OOMKilled:
			e.OOM = OOMCertain
		case process.PossiblyOOM:
			e.OOM = OOMPossible
		case process.NotOOM:
		}
	}
	return e
}

func (b *processBody) sent() signals { return signals(b.sigs.Load()) }

func (b *processBody) leaked() <-chan struct{} { return nil }

func (b *processBody) waited() (time.Duration, error) { return b.proc.Waited() }
func (b *processBody) traced() bool                   { return b.proc.Traced() }

func (b *processBody) abort() {
	if err := b.proc.Abort(); err != nil {
		b.rt.log.LogAttrs(context.Background(), slog.LevelError, "signal failed",
			slog.Int("pid", b.proc.PID()), slog.String("signal", syscall.SIGABRT.String()), slog.Any("err", err))
	}
}

func (b *processBody) terminate() { b.signal(syscall.SIGTERM) }

func (b *processBody) kill() {
	b.signal(syscall.SIGKILL)
	b.once.Do(func() { close(b.killed) })
}

func (b *processBody) signal(sig syscall.Signal) {
	select {
	case <-b.proc.Done(): // it is for those that the process has left behind
	default:
		b.sigs.Or(uint64(signals(0).with(sig)))
	}
	if err := b.proc.SignalGroup(sig); err != nil {
		b.rt.log.LogAttrs(context.Background(), slog.LevelError, "signal failed",
			slog.Int("pid", b.proc.PID()), slog.String("signal", sig.String()), slog.Any("err", err))
	}
}
