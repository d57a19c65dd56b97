package coppice

import (
	"context"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/supervisor"
)

// program is a running program that is not this one. It is a
// supervisor.Instance: asked to stop by SIGTERM, killed by SIGKILL, both to its
// process group.
type program struct {
	body  *processBody
	name  string
	born  time.Time
	asked atomic.Bool

	done   chan struct{}
	reason supervisor.Reason
}

func (rt *Runtime) startForeign(spec Process, name string) (supervisor.Instance, error) {
	body, err := rt.forkForeign(spec, name)
	if err != nil {
		return nil, err
	}
	p := &program{body: body, name: name, born: time.Now(), done: make(chan struct{})}
	go p.live(rt.log) // ends with the process
	return p, nil
}

func (p *program) live(log *slog.Logger) {
	defer close(p.done)
	<-p.body.done()
	p.reason = p.body.exit().reason(p.asked.Load())
	level := slog.LevelWarn
	if p.reason.IsNormal() {
		level = slog.LevelInfo
	}
	log.LogAttrs(context.Background(), level, "program ended", slog.String("name", p.name), slog.Int("pid", p.body.pid()),
		slog.String("reason", p.reason.String()), slog.Duration("uptime", time.Since(p.born)))
}

func (p *program) Stop() {
	p.asked.Store(true)
	p.body.signal(syscall.SIGTERM)
}

func (p *program) Kill()                     { p.body.kill() }
func (p *program) Done() <-chan struct{}     { return p.done }
func (p *program) Reason() supervisor.Reason { return p.reason }
func (p *program) Info() any                 { return info{role: "process", name: p.name, pid: p.body.pid()} }
