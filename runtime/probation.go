package coppice

import (
	"context"
	"fmt"
	"sync"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/declaration"
	"github.com/coppice-go/coppice/supervisor"
)

// A probation is the first run of a child that an upgrade starts, while that can still go back. If
// it ends meanwhile, the upgrade fails, as a reload does by a worker, and the supervisor learns of
// the end only if the program stays: so no budget is used up, and the tree does not end.
type probation struct {
	supervisor.Instance
	asked sync.Once
	stop  chan struct{} // closed when it was asked to end
	done  chan struct{} // closed when it has ended, and its supervisor is to know
}

func (p *probation) Done() <-chan struct{} { return p.done }

func (p *probation) Stop() {
	p.asked.Do(func() { close(p.stop) })
	p.Instance.Stop()
}

func (p *probation) Kill() {
	p.asked.Do(func() { close(p.stop) })
	p.Instance.Kill()
}

// onProbation reports whether the child of n is to show that it runs: it is new, or a Func.
func (in *inheritance) onProbation(n *node) bool {
	_, is := n.spec.(Func)
	return in.back == "" && (is || !in.declared(n.path, declaration.Kind(n.spec))) && !childproto.IsClosed(in.rolled)
}

// watch puts the child at a path on probation.
func (in *inheritance) watch(path string, restart supervisor.Restart, i supervisor.Instance) supervisor.Instance {
	p := &probation{Instance: i, stop: make(chan struct{}), done: make(chan struct{})}
	go func() { // ends with the child, and with the upgrade or a request to end
		defer close(p.done)
		<-i.Done()
		r := i.Reason()
		if restart == supervisor.Temporary || restart == supervisor.Transient && r.IsNormal() {
			return
		}
		select {
		case <-p.stop:
			return
		default:
		}
		in.fail(fmt.Errorf("%s ended before the upgrade was over: %s", path, r))
		select {
		case <-p.stop:
		case <-in.rolled:
		}
	}()
	return p
}

// fail makes the upgrade fail, unless it is over.
func (in *inheritance) fail(err error) {
	select {
	case in.failures <- err:
	default: // there is a reason already
	}
}

// failure returns why the upgrade is to fail; nil if it is not.
func (in *inheritance) failure() error {
	select {
	case err := <-in.failures:
		return err
	default:
		return nil
	}
}

// untilFailure returns a context that ends when the upgrade fails, with the reason for its cause.
// The caller ends it.
func (in *inheritance) untilFailure() (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(context.Background())
	go func() { // ends with ctx
		select {
		case err := <-in.failures:
			cancel(err)
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}
