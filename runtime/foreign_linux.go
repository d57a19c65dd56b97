package coppice

import (
	"sync/atomic"

	"github.com/coppice-go/coppice/supervisor"
)

// program is a running program that is not this one. It is a
// supervisor.Instance: asked to stop by SIGTERM, killed by SIGKILL, both to its
// process group.
type program struct {
	body    *processBody
	name    string
	asked   atomic.Bool
	killed  atomic.Pointer[KillReason]
	success []int

	done   chan struct{}
	reason supervisor.Reason
}

func (rt *Runtime) startForeign(spec Process, name string) (supervisor.Instance, error) {
	body, err := rt.forkForeign(spec, name)
	if err != nil {
		return nil, err
	}
	p := &program{body: body, name: name, success: spec.SuccessExit, done: make(chan struct{})}
	go p.live() // ends with the process
	return p, nil
}

func (p *program) live() {
	<-p.body.done()
	exit := p.body.exit()
	exit.killedFor(&p.killed)
	p.reason = exit.reason(ending{p.asked.Load(), p.body.sent(), p.success})
	close(p.done)
}

func (p *program) Stop() {
	p.asked.Store(true)
	p.body.terminate()
}

// Kill ends it: after it was asked in vain, or without.
func (p *program) Kill() {
	why := KilledBrutal
	if p.asked.Load() {
		why = KilledStop
	}
	p.killed.CompareAndSwap(nil, &why)
	p.body.kill()
}

func (p *program) Done() <-chan struct{}     { return p.done }
func (p *program) Reason() supervisor.Reason { return p.reason }
func (p *program) Info() any                 { return info{role: "process", name: p.name, pid: p.body.pid()} }
