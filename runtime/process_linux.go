package coppice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/cgroup"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/history"
	"github.com/coppice-go/coppice/runtime/internal/output"
	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/runtime/internal/queue"
	"github.com/coppice-go/coppice/runtime/internal/started"
	"github.com/coppice-go/coppice/runtime/internal/testrun"
	"github.com/coppice-go/coppice/supervisor"
)

// channelFD is the number of the channel in a child. It is not 3, where LISTEN_FDS starts
// (sd_listen_fds(3)).
const channelFD = 10

// processChild is a child that is a separate process, and its output.
type processChild struct {
	spawner
	proc   *process.Process
	how    spawnRequest
	stdout *process.Lines
	stderr *process.Lines
	words  process.LastWords // of stderr
	dumps  output.Dumps      // of stderr

	outPiece, errPiece int // the numbers of the pieces of a line that were read last

	tail   output.Tail
	oom    *process.OOMWatch
	used   *history.Log[Usage]
	own    *cgroup.Cgroup // nil = none of its own
	atEnd  groupEnd
	sigs   atomic.Uint64 // sent by the master while it lived: a signals
	ended  chan struct{} // closed by finish
	began  time.Time     // when it was started
	at     time.Time     // when it ended; set before ended
	killed chan struct{} // closed when its group has got SIGKILL
	once   sync.Once     // closes killed

	stopping stopping

	former *inheritance // that it was taken over from; nil = it was started by this image of the master
}

// spawner starts processes.
type spawner struct {
	log    *slog.Logger
	output *queue.Queue[output.Line] // takes the lines that the processes print
	test   testrun.Test              // in which the tree runs

	maxLine int           // Config.MaxLine
	dumps   bool          // a dump is one line of the output
	orphans time.Duration // Config.OrphanDrain
	groups  *groupMetrics
}

// fork starts a worker as a process: this program once more. It returns the socket of the master's
// end of the channel, owned by the caller.
func (s spawner) fork(ctx context.Context, w workerStart) (*os.File, backend, error) {
	at := w.place().name
	local, remote, err := fdipc.Socketpair()
	if err != nil {
		return nil, nil, startError(at, err)
	}
	defer remote.Close()
	channel := max(channelFD, firstFile+len(w.env.Files))
	marks := fdipc.Environ(channel, map[string]string{
		childproto.FilesVar:   w.env.fileNames(), // also if there are no files: the variable marks this child
		childproto.StartedVar: started.State(w.env.limits()),
	})
	if seal := w.env.Sandbox.spec().Seal(); seal != "" {
		marks = append(marks, seal)
	}
	b, err := s.spawn(ctx, process.Command{
		Executable: w.exe, Args: s.test.Args(started.Args()), Env: w.env.variables(withLabels(merge(w.environ, reservedVars)), w.size, append(marks, deeper())...),
		Files:       slices.Insert(make([]*os.File, channel), channel, remote),
		DeathSignal: syscall.SIGTERM, // workers drain when the master is gone
	}, w.env, w.request())
	if err != nil {
		return nil, nil, errors.Join(err, local.Close())
	}
	return local, b, nil
}

// withLabels has a Go program print the labels of its goroutines (pprof.Do) with their stacks,
// unless GODEBUG says whether it does.
func withLabels(environ []string) []string {
	const name, setting = "GODEBUG=", "tracebacklabels=1"
	for i, kv := range environ {
		if v, ok := strings.CutPrefix(kv, name); ok {
			environ[i] = name + setting + "," + v // the last of two counts
			return environ
		}
	}
	return append(environ, name+setting)
}

// request returns how the master handles the process.
func (w workerStart) request() spawnRequest {
	return spawnRequest{grace: groupGrace, place: w.place, label: output.Line{Name: w.hello.Name, ID: w.hello.ID, Generation: w.hello.Generation}}
}

// forkProgram starts another program, one of size. It gets the sockets of its Listeners, which are
// borrowed. Its variables are environ, those of its spec, and vars.
func (s spawner) forkProgram(ctx context.Context, p Process, size int, sockets []*os.File, environ []string, how spawnRequest, vars ...string) (*processChild, error) {
	env := p.Environment
	if len(env.Files) > 0 {
		vars = append(vars, "COPPICE_"+childproto.FilesVar+"="+env.fileNames())
	}
	if len(sockets) > 0 {
		vars = append(vars, "LISTEN_FDS="+strconv.Itoa(len(sockets)), "LISTEN_FDNAMES="+strings.Join(p.Listeners, ":"))
	}
	return s.spawn(ctx, process.Command{
		Path: p.Command[0], Args: p.Command, Env: env.variables(merge(environ, reservedVars), size, append(vars, deeper())...),
		Files: append(make([]*os.File, firstFile), sockets...), ListenPID: len(sockets) > 0,
		DeathSignal: syscall.SIGKILL,
	}, env, how)
}

// reservedVars are variables that concern only the master: its service manager set them.
var reservedVars = []string{
	"NOTIFY_SOCKET", "FDSTORE", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES",
	"COPPICE_" + childproto.FilesVar,
}

// spawnRequest is how the master handles a process, besides starting it.
type spawnRequest struct {
	label output.Line        // name and numbers for its lines
	grace time.Duration      // of its group, once its leader has ended
	place func() *assignment // of the tree's own children: their present names
	line  func([]byte)       // called with each line of both streams; nil = none
}

// present returns the label with the names that the process has at present.
func (r spawnRequest) present() output.Line {
	l := r.label
	if r.place != nil {
		at := r.place()
		l.Name, l.Slot, l.Incarnation = at.name, at.slot, at.incarnation
	}
	return l
}

// spawn starts cmd in the environment env, whose variables cmd has already. Its input is the null
// device and its output is read. spawn fills in the first three of cmd.Files. Calls that may block
// are waited for until ctx ends.
func (s spawner) spawn(ctx context.Context, cmd process.Command, env Environment, how spawnRequest) (*processChild, error) {
	key := fmt.Sprintf("%s %p %q %v", how.label.Name, cmd.Executable, cmd.Args, env)
	out, err := process.Apart(ctx, key, func(at *process.Look) (*appliedEnvironment, error) {
		return env.apply(cmd, how.label, s.orphans, at)
	})
	if err != nil {
		return nil, startError(how.label.Name, err)
	}
	defer out.Close()
	cmd = out.cmd
	stdin, err := os.Open(os.DevNull)
	if err != nil {
		return nil, startError(how.label.Name, err)
	}
	defer stdin.Close()
	outR, outW, err := process.OutputPipe()
	if err != nil {
		return nil, startError(how.label.Name, err)
	}
	defer outW.Close()
	errR, errW, err := process.OutputPipe()
	if err != nil {
		return nil, startError(how.label.Name, errors.Join(err, outR.Close()))
	}
	defer errW.Close()
	cmd.Files[0], cmd.Files[1], cmd.Files[2] = stdin, outW, errW
	if c := cmd.Credential; c != nil { // so that it can open /dev/stderr
		if err := errors.Join(outW.Chown(int(c.Uid), int(c.Gid)), errW.Chown(int(c.Uid), int(c.Gid))); err != nil {
			return nil, errors.Join(environmentError("User", env.User, err), outR.Close(), errR.Close())
		}
	}
	proc, err := process.Start(cmd)
	if err != nil {
		return nil, asShortage(errors.Join(fmt.Errorf("coppice: %s: %w", how.label.Name, err), outR.Close(), errR.Close()))
	}
	if lacks := proc.Lacks(); len(lacks) > 0 {
		s.log.LogAttrs(ctx, slog.LevelWarn, "walls are missing (Environment.Sandbox.BestEffort)", slog.String("name", how.label.Name), slog.Any("lacks", lacks))
	}
	b := s.watch(proc, time.Now(), how, out.group)
	out.group = nil
	b.stdout, b.stderr = process.ReadLines(outR, s.maxLine, b.takeStdout), process.ReadLines(errR, s.maxLine, b.takeStderr)
	return b, nil
}

// watch returns the record of a process that was started at began, and owns its group. Its output
// is not read yet.
func (s spawner) watch(proc *process.Process, began time.Time, how spawnRequest, own *cgroup.Cgroup) *processChild {
	b := &processChild{spawner: s, proc: proc, began: began, own: own, used: history.New[Usage](maxUsage, 0, nil), how: how, ended: make(chan struct{}), killed: make(chan struct{})}
	b.oom = process.WatchOOM(proc.PID(), own.Events(), b.lookUsage)
	b.stopping.log, b.stopping.name, b.stopping.pid = s.log, func() string { return how.present().Name }, proc.PID()
	b.how.label.PID = proc.PID()
	if s.dumps {
		b.dumps.Put = b.put
	}
	return b
}

// takeStdout takes a line of standard output, or a piece of one.
func (b *processChild) takeStdout(line []byte, more bool) {
	b.printed(b.line(output.Stdout, line, more, &b.outPiece), false)
}

// takeStderr takes a line of standard error, or a piece of one.
func (b *processChild) takeStderr(line []byte, more bool) {
	b.printed(b.line(output.Stderr, line, more, &b.errPiece), b.words.Note(time.Now(), line))
}

// line returns a line, or a piece of one, that the process has printed. piece is the number of the
// piece before it, and becomes its own.
func (b *processChild) line(stream string, text []byte, more bool, piece *int) output.Line {
	if b.how.line != nil {
		b.how.line(text)
	}
	l := b.how.present()
	l.Time, l.Stream, l.Text, l.More = time.Now(), stream, string(text), more
	if more || *piece > 0 {
		*piece++
		l.Piece = *piece
	}
	if !more {
		*piece = 0
	}
	return l
}

// printed keeps a line and passes it on; begins marks the beginning of last words. It waits for
// Config.Output, at most as long as the queue of lines does.
func (b *processChild) printed(l output.Line, begins bool) {
	b.tail.Add(l, begins)
	if !b.dumps.Take(l, begins) {
		b.put(l)
	}
}

// put passes a line on.
func (b *processChild) put(l output.Line) {
	if !b.output.Put(l) {
		b.tail.Lose()
	}
}

// finish waits for the process's end, ends the processes that it left behind, and reads its output
// to the end. It is called once.
func (b *processChild) finish() {
	defer close(b.ended)
	<-b.proc.Done()
	b.oom.Stop()
	b.at = time.Now()
	b.endGroup()
	b.endCgroup()
	process.Finish(b.stdout, b.stderr)
	b.dumps.Flush()
	b.stopping.ended()
	if err := b.proc.Close(); err != nil {
		b.log.LogAttrs(context.Background(), slog.LevelError, "close a pidfd", slog.Int("pid", b.pid()), slog.Any("err", err))
	}
}

func (b *processChild) pid() int              { return b.proc.PID() }
func (b *processChild) group() *cgroup.Cgroup { return b.own }
func (b *processChild) done() <-chan struct{} { return b.ended }

func (b *processChild) exited() <-chan struct{} { return b.proc.Done() }

func (b *processChild) exit() Exit {
	e := exitOf(b.proc.PID(), b.proc.Exit())
	e.Steps, e.Resources = b.stopping.steps(), b.atEnd.usage
	if e.Code != 0 {
		e.Words = b.words.Said(b.at).Line
	}
	if e.Signal == syscall.SIGKILL && !b.sent().has(syscall.SIGKILL) {
		switch b.atEnd.oom {
		case process.OOMKilled:
			e.OOM = OOMCertain
		case process.PossiblyOOM:
			e.OOM = OOMPossible
		case process.NotOOM:
		}
	}
	return e
}

// fillReport adds to a report when the process lived and its last lines.
func (b *processChild) fillReport(r *CrashReport) {
	r.Time, r.Uptime = b.at, b.at.Sub(b.began)
	r.Lost = b.tail.Lost()
	r.Cgroup = supervisor.Cut(b.atEnd.counted)
	for _, u := range b.used.Kept(0, maxUsage) {
		r.Usage = append(r.Usage, u.Value)
	}
	if r.Exit.Core {
		pattern, _ := os.ReadFile("/proc/sys/kernel/core_pattern")
		r.Core = coreFile(strings.TrimSpace(string(pattern)), r.Exit.PID)
	}
	if r.Exit.Words == "" {
		lines, before := b.tail.Last()
		r.Lines, r.Before = outputLines(lines), before
		return
	}
	said := b.words.Said(b.at)
	r.Dump, r.Cut = said.Dump, said.Cut
	lines, before := b.tail.BesidesWords()
	r.Lines, r.Before = outputLines(lines), before
}

// maxUsage is how many looks at a process are kept: of the last minute.
const maxUsage = 6

func (b *processChild) lookUsage() {
	if u, ok := usageOf(b.pid()); ok {
		b.used.Put(Usage{time.Now(), u.memory, time.Duration(u.cpu), u.files})
	}
}

func (b *processChild) sent() signals { return signals(b.sigs.Load()) }

func (b *processChild) leaked() <-chan struct{} { return nil }

func (b *processChild) dump() string { return b.words.Said(b.at).Dump }

// printedLast returns the last lines that the process has printed, besides its last words.
func (b *processChild) printedLast() []string {
	lines, _ := b.tail.BesidesWords()
	texts := make([]string, len(lines))
	for i, l := range lines {
		texts[i] = l.Text
	}
	return texts
}

func (b *processChild) waited() (time.Duration, error) { return b.proc.Waited() }
func (b *processChild) traced() bool                   { return b.proc.Traced() }
func (b *processChild) cause() error                   { return nil }

func (b *processChild) abort() {
	b.stopping.step(unix.SignalName(unix.SIGABRT))
	b.failed(syscall.SIGABRT, b.proc.Abort())
}

// asked notes that the process was asked to end by other means than a signal.
func (b *processChild) asked(how string) { b.stopping.step(how) }

// ask sends sig to the process, not to its group.
func (b *processChild) ask(sig syscall.Signal) { b.send(sig, b.proc.Signal) }

func (b *processChild) terminate() { b.signal(syscall.SIGTERM) }

func (b *processChild) kill() {
	b.signal(syscall.SIGKILL)
	b.failed(syscall.SIGKILL, b.own.Kill())
	b.once.Do(func() { close(b.killed) })
}

// signal sends sig to the process's group.
func (b *processChild) signal(sig syscall.Signal) { b.send(sig, b.proc.SignalGroup) }

func (b *processChild) send(sig syscall.Signal, to func(syscall.Signal) error) {
	b.former.beforeEnd(b.stopping.name())
	name := unix.SignalName(sig)
	select {
	case <-b.proc.Done(): // the signal is for the processes that it left behind
		name += toItsGroup
	default:
		b.sigs.Or(uint64(signals(0).with(sig)))
	}
	b.stopping.step(name)
	b.failed(sig, to(sig))
}

func (b *processChild) failed(sig syscall.Signal, err error) {
	if err != nil {
		b.log.LogAttrs(context.Background(), slog.LevelError, "signal failed",
			slog.Int("pid", b.proc.PID()), slog.String("signal", unix.SignalName(sig)), slog.Any("err", err))
	}
}
