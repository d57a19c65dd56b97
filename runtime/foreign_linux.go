package coppice

import (
	"sync/atomic"
	"syscall"

	"github.com/coppice-go/coppice/supervisor"
)

// program is a running program that is not this one. It is a
// supervisor.Instance: asked to stop by SIGTERM, killed by SIGKILL, both to its
// process group.
type program struct {
	body  *processBody
	name  string
	asked atomic.Bool

	done   chan struct{}
	reason supervisor.Reason
}

func (rt *Runtime) startForeign(spec Process, name string) (supervisor.Instance, error) {
	body, err := rt.forkForeign(spec, name)
	if err != nil {
		return nil, err
	}
	p := &program{body: body, name: name, done: make(chan struct{})}
	go p.live() // ends with the process
	return p, nil
}

func (p *program) live() {
	<-p.body.done()
	p.reason = p.body.exit().reason(p.asked.Load())
	close(p.done)
}

func (p *program) Stop() {
	p.asked.Store(true)
	p.body.signal(syscall.SIGTERM)
}

func (p *program) Kill()                     { p.body.kill() }
func (p *program) Done() <-chan struct{}     { return p.done }
func (p *program) Reason() supervisor.Reason { return p.reason }
func (p *program) Info() any                 { return info{role: "process", name: p.name, pid: p.body.pid()} }
