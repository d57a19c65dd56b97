package coppice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/netactor/registry"
	"github.com/coppice-go/coppice/runtime/internal/cgroup"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/declaration"
	"github.com/coppice-go/coppice/runtime/internal/handover"
	"github.com/coppice-go/coppice/runtime/internal/image"
	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/runtime/internal/started"
	"github.com/coppice-go/coppice/runtime/internal/testrun"
	"github.com/coppice-go/coppice/supervisor"
	"golang.org/x/sys/unix"
)

// beforeUpgradeStep is called before each step of an upgrade, and after the last. Tests set it.
var beforeUpgradeStep = func(step string) {}

// takeImage returns what the image of the master before this one has left for the tree of root,
// which declares the lines of tree; nil if there was none. giveUp is called when the trial fails
// beside the start.
func takeImage(root *node, tree []string, giveUp func(error)) (*inheritance, error) {
	in, err := readImage()
	if in == nil || err != nil {
		return nil, err
	}
	in.giveUp = giveUp
	in.planSizes(root, tree)
	in.timer = time.AfterFunc(trialTimeout, func() {
		giveUp(fmt.Errorf("the new program was not up within %v", trialTimeout))
	})
	return in, nil
}

// readImage returns what the image before this one has left; nil if there was none.
func readImage() (*inheritance, error) {
	if !image.Replaced() {
		return nil, nil
	}
	beforeUpgradeStep("trial")
	_ = process.PrepareExec() // on this goroutine, which should be the main one; upgradable returns its error
	in := &inheritance{ended: make(chan struct{}), rolled: make(chan struct{}), failures: make(chan error, 1), execed: time.Now()}
	var now unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	if err == nil {
		in.execed = in.execed.Add(image.At() - time.Duration(now.Nano()))
	}
	if in.file, in.fds, err = image.Inherited(); err != nil {
		return nil, fmt.Errorf("coppice: upgrade: %w", err)
	}
	b, err := readAll(in.file)
	if err != nil {
		return nil, fmt.Errorf("coppice: upgrade: %w", err)
	}
	if in.state, err = handover.Decode(b, len(in.fds)); err != nil {
		return nil, err
	}
	started.TakeOver(in.state.Program, in.state.Dir)
	cgroup.TakeOver(in.state.Cgroup)
	in.back = cmp.Or(os.Getenv(backVar), in.state.Back)
	return in, os.Unsetenv(backVar)
}

// refuseImage executes the program of before again when this one cannot even begin to start its
// tree.
func refuseImage(why error, log *slog.Logger) {
	if in, err := readImage(); in != nil && err == nil {
		in.endTrial(why, log, func() {})
	}
}

// planSizes gives each pool the size that it had. A pool that the new program declares with another
// size gets that after the trial.
func (in *inheritance) planSizes(root *node, tree []string) {
	in.stays = map[string]bool{childproto.ListenersName: root.listens()}
	in.had, in.resize, in.begun = in.sizes(), map[string]int{}, maps.Clone(in.state.Sizes)
	if in.begun == nil {
		in.begun = map[string]int{}
	}
	for _, c := range declaration.Compare(in.state.Tree, tree) {
		if c.Name == "Size" {
			delete(in.begun, c.Path)
		}
	}
	for path, slots := range in.state.Pools {
		in.had[path] = len(slots)
	}
	for path, had := range in.had {
		n := root.find(path)
		if n == nil {
			continue
		}
		p, is := n.spec.(Pool)
		in.stays[path] = is
		if is && in.begun[path] == 0 && p.size() != had {
			in.begun[path], in.resize[path] = had, p.size()
		}
	}
}

// readAll returns the content of a file in memory.
func readAll(f *os.File) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, st.Size())
	_, err = f.ReadAt(b, 0)
	return b, err
}

// take returns the state and the descriptors of a part, which owns them. They are duplicates: those
// that the state names stay until the end of the trial, for the way back.
func (in *inheritance) take(p handover.Part) (state []byte, fds []int, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, i := range p.Files {
		if in.fds == nil {
			return nil, nil, errors.New("the trial is over")
		}
		fd, err := unix.FcntlInt(uintptr(in.fds[i]), unix.F_DUPFD_CLOEXEC, firstFile)
		if err != nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
			return nil, nil, os.NewSyscallError("fcntl", err)
		}
		fds = append(fds, fd)
	}
	return p.State, fds, nil
}

// files is take for descriptors alone, as files.
func (in *inheritance) files(of []int) (files []*os.File, err error) {
	_, fds, err := in.take(handover.Part{Files: of})
	for _, fd := range fds {
		files = append(files, os.NewFile(uintptr(fd), fmt.Sprintf("descriptor %d", fd)))
	}
	return files, err
}

// executable takes a program file.
func (in *inheritance) executable(p handover.ProgramFile) (*executable, error) {
	files, err := in.files(p.Files)
	if err != nil {
		return nil, err
	}
	return process.RestoreExecutable(p.State, files)
}

// openTable returns the table of the tree's sockets.
func (in *inheritance) openTable(cfg registry.Config) (*registry.Table, error) {
	if in == nil {
		return registry.New(cfg), nil
	}
	state, fds, err := in.take(in.state.Sockets)
	if err != nil {
		return nil, fmt.Errorf("coppice: upgrade: %w", err)
	}
	return registry.Restore(state, fds, cfg)
}

// openSystem returns the master's actor system.
func (in *inheritance) openSystem(cfg actors.Config) (*actors.System, error) {
	if in == nil {
		return actors.NewSystem(cfg)
	}
	return actors.Restore(cfg, in.state.Actors.State)
}

// firstGeneration makes the generation that the tree begins with.
func (in *inheritance) firstGeneration(gs *generations, config []byte) error {
	if in == nil {
		return gs.first(config)
	}
	before := in.state.Generations
	exe, err := in.executable(before.ProgramFile)
	if err != nil {
		return fmt.Errorf("coppice: upgrade: the executable of the workers: %w", err)
	}
	g := newGeneration(before.Current, exe, before.Config)
	g.environ = before.Environ
	self, err := openExecutable()
	if err != nil {
		return errors.Join(fmt.Errorf("coppice: upgrade: %w", err), exe.Close())
	}
	gs.takeOver(before.Last, g, self, config)
	return nil
}

// trialTimeout bounds the start of the new program, from its exec on.
const trialTimeout = 30 * time.Second

// goBackTimeout bounds what the way back waits for: a start that is under way.
const goBackTimeout = 2 * time.Second

// backVar is the variable that tells the program of before why it is executed again.
const backVar = "COPPICE_UPGRADE_FAILED"

// endTrial executes the program of before again if this image is in its trial. It returns if that
// is not possible. kill kills what this image has started.
func (in *inheritance) endTrial(why error, log *slog.Logger, kill func()) {
	if in.back != "" { // it would come to this again
		log.Error("upgrade: the old program cannot take its children back: the tree ends", "err", why)
		return
	}
	log.Error("upgrade: the new program cannot take over: the old one goes on", "err", why)
	kill()
	flushLog(log)
	err := in.goBack(why)
	log.Error("upgrade: the old program cannot be executed again", "err", err)
}

func (in *inheritance) goBack(why error) error {
	ctx, cancel := context.WithTimeout(context.Background(), goBackTimeout)
	defer cancel()
	starts, err := process.Suspend(ctx)
	if err != nil {
		return err
	}
	defer starts.Resume()
	self := in.state.Self
	var files []*os.File
	in.mu.Lock()
	fds := slices.Clone(in.fds)
	for _, i := range self.Files { // no duplicates, for which there may be no room
		files = append(files, os.NewFile(uintptr(fds[i]), "program"))
		in.fds[i] = -1 // the file closes it
	}
	in.mu.Unlock()
	exe, err := process.RestoreExecutable(self.State, files)
	if err != nil {
		return err
	}
	defer exe.Close() // a file that was only read
	return starts.Exec(ctx, process.Image{
		Executable: exe, Args: started.Args(), Env: append(os.Environ(), backVar+"="+strings.ReplaceAll(supervisor.Cut(why.Error()), "\x00", "")), State: in.file, FDs: fds,
	})
}

// onMainThread returns nil if a tree that is started here could be upgraded again after an upgrade.
// In a test there is no upgrade.
func onMainThread(test testrun.Test) error {
	if test.Running() {
		return nil
	}
	return process.OnMainThread()
}

// canTakeOver returns nil if a master with the tree of root can take over from one that has left
// state.
func (root *node) canTakeOver(listener Isolation, host string, state []byte) error {
	s, err := handover.Decode(state, 0)
	if err != nil {
		return err
	}
	var errs []error
	if s.Host != host {
		errs = append(errs, fmt.Errorf("Config.Hosts names the host %q, which is %q: addresses are fixed at the start", host, s.Host))
	}
	if listener == GoroutineIsolation {
		errs = append(errs, errors.New("Config.ListenerIsolation is goroutine: its connections could not be taken over"))
	}
	for _, w := range s.Workers {
		n := root.find(w.Pool)
		if n == nil {
			continue // it is stopped
		}
		if p, ok := n.spec.(Pool); ok && p.Isolation == GoroutineIsolation {
			errs = append(errs, fmt.Errorf("pool %s has workers that are processes, and Isolation is goroutine in the new program", w.Pool))
		}
	}
	var look func(*node)
	look = func(n *node) {
		for _, c := range n.declared {
			in := inheritance{state: s}
			if n.spec != nil && in.declared(n.path, declaration.Kind(n.spec)) && !in.declared(c.path, declaration.Kind(c.spec)) {
				errs = append(errs, fmt.Errorf("%s is new, or of another kind, below the Supervisor %s, which goes on: only a child of the root can be new", c.path, n.path))
			}
			look(c)
		}
	}
	look(root)
	if err := root.checkDescriptors(listener); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
