package coppice

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/handover"
	"github.com/coppice-go/coppice/runtime/internal/mark"
	"github.com/coppice-go/coppice/runtime/internal/memfile"
	"github.com/coppice-go/coppice/runtime/internal/started"
)

// checkTimeout is how long a new program has to say whether it can take the master over.
const checkTimeout = 10 * time.Second

// checkerName is the name of the child that checks an upgrade.
const checkerName = "upgrade"

// successor opens the program of an upgrade.
func (rt *Runtime) successor(ctx context.Context) (*executable, error) {
	program, err := started.Program()
	if err == nil {
		var exe *executable
		if exe, err = executableAt(ctx, program); err == nil {
			return exe, nil
		}
	}
	return nil, &UpgradeError{"check", err}
}

// A checker is a new program that says whether it can take the master over, seen from the master.
type checker struct {
	name string

	mu     sync.Mutex
	lines  []string // what it declares; those of the tree until it says otherwise
	notice *childproto.ExitNotice
}

// checkProgram starts the program of an upgrade as a child, which reads what this master is, and
// returns what it would change.
func (rt *Runtime) checkProgram(ctx context.Context, exe *executable) (plan []string, err error) {
	defer func() {
		if err != nil {
			err = &UpgradeError{"check", err}
		}
	}()
	if err := rt.upgradable(); err != nil {
		return nil, err
	}
	preview, err := rt.preview().Encode()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	tree := rt.declarations.tree()
	k := &checker{name: checkerName, lines: tree}
	environ := slices.Concat(rt.generations.environ(), []string{mark.Var + "=" + mark.Trial})
	if err := k.run(ctx, rt.backends.spawner, exe, environ, rt.declarations.digest(), preview); err != nil {
		return nil, err
	}
	return handover.Plan(tree, k.lines), nil
}

// run runs the program from its start to its end, which is its answer.
func (k *checker) run(ctx context.Context, s spawner, exe *executable, environ []string, digest string, state []byte) error {
	hello := childproto.Hello{
		Protocol: childproto.Version, Role: childproto.RoleCheck, Name: k.name, Tree: digest, Slot: None, ConfigSize: len(state),
	}
	file, err := memfile.Sealed("state", state)
	if err != nil {
		return err
	}
	handle, err := fdipc.HandleOf(file)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	end, b, err := s.fork(ctx, workerStart{hello: hello, exe: exe, environ: environ, size: 1, place: func() *assignment {
		return &assignment{name: k.name, slot: None}
	}})
	if err != nil {
		return errors.Join(err, handle.Close())
	}
	conn, err := fdipc.New(end, childproto.ConnConfig(k.handle, nil))
	if err == nil {
		err = conn.Send(ctx, childproto.NewFrame(childproto.FrameHello, hello, handle))
	}
	if err != nil {
		_ = handle.Close()
	}
	var slow error
	select {
	case <-b.exited():
	case <-ctx.Done():
		slow = fmt.Errorf("the new program has not answered: %w", context.Cause(ctx))
		b.kill()
	}
	b.finish()
	if conn != nil {
		readToEnd(conn)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case slow != nil:
		return fmt.Errorf("%w%s", slow, taggedLines(k.name, newest(b.printedLast())))
	case k.notice == nil && err != nil && !childproto.IsEnd(err):
		return err
	case k.notice == nil:
		return fmt.Errorf("the new program ended before it answered: %v%s", b.exit(), taggedLines(k.name, newest(b.printedLast())))
	case k.notice.Kind != childproto.NoticeNormal:
		return errors.New(k.notice.Text)
	}
	return nil
}

// handle takes a frame of the program. Only its declaration and its exit notice mean something.
func (k *checker) handle(_ *fdipc.Conn, f *fdipc.Frame) {
	if childproto.OwnKind(f.Kind) && childproto.WithinBounds(f) == nil {
		k.mu.Lock()
		defer k.mu.Unlock()
		switch f.Kind {
		case childproto.FrameDeclaration:
			_ = childproto.Handle(f, func(d childproto.DeclarationFrame) { k.lines = d.Lines })
			return
		case childproto.FrameExitNotice:
			_ = childproto.Handle(f, func(n childproto.ExitNotice) { n = n.Cut(); k.notice = &n })
			return
		}
	}
	f.Refuse(fdipc.ReasonUnknown)
}
