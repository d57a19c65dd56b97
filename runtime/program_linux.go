package coppice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/handover"
	"github.com/coppice-go/coppice/runtime/internal/output"
	"github.com/coppice-go/coppice/runtime/internal/readiness"
	"github.com/coppice-go/coppice/supervisor"
)

// programInstance is a running program other than this one. It is a supervisor.Instance: it is
// asked to stop by the signal of its spec, then by SIGTERM to its process group, and killed by
// SIGKILL to the group.
type programInstance struct {
	supervisor.Termination
	crashes *crashQueue
	stops   *stopPlan
	spec    Process
	body    *processChild
	name    string
	inc     int
	ready   atomic.Bool
	asked   atomic.Bool
	killed  atomic.Pointer[KillReason]
}

// start starts another program and returns when it is ready.
func (f programStarter) start(ctx context.Context, incarnation int) (supervisor.Instance, error) {
	spec, name := f.spec, f.path
	if before := f.inherited.program(name); before != nil {
		return f.takeOver(before)
	}
	timeout := cmp.Or(spec.StartTimeout, defaultStartTimeout)
	var ready *readiness.Probe
	var body *processChild
	var began time.Time
	try := func() (err error) {
		began = time.Now()
		ctx, cancel := context.WithTimeoutCause(ctx, timeout, errForkTimeout)
		defer cancel()
		sockets, err := f.copies(ctx)
		if err != nil {
			return startError(name, err)
		}
		defer closeFiles(sockets)
		if ready, err = readiness.New(readiness.Condition(spec.Ready)); err != nil {
			return startError(name, err)
		}
		if body, err = f.forkProgram(ctx, spec, 1, sockets, f.environ(), f.request(incarnation, ready.See), ready.Variables()...); err != nil {
			ready.Close()
		}
		return err
	}
	wait, cancel := ctx, context.CancelFunc(func() {})
	if incarnation == 1 { // the caller of Start, or of StartChild, waits
		wait, cancel = context.WithTimeout(ctx, timeout)
	}
	err := f.shortages.retry(wait, name, try)
	cancel()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	p := &programInstance{crashes: f.crashes, stops: f.stops, spec: spec, body: body, name: name, inc: incarnation}
	go p.live() // ends with the process
	if spec.Ready.Alive == 0 {
		defer warnIfSlow(f.log, timeout, "the start of "+name, fmt.Sprintf("it waits for %v", spec.Ready), "name", name, "pid", body.pid(), "limit", timeout.String())()
	}
	switch err := ready.Await(ctx, body.pid(), body.done(), timeout-time.Since(began)); {
	case err == nil:
		p.ready.Store(true)
		return p, nil
	case errors.Is(err, readiness.ErrEnded):
		<-p.Done()
		return nil, p.failure(fmt.Sprintf("it ended before it was ready (%v)", spec.Ready), ready)
	case errors.Is(err, os.ErrDeadlineExceeded):
		p.killFor(KilledNotReady)
	default: // the start is no longer wanted
		p.killFor(KilledUnwanted)
	}
	<-p.Done()
	return nil, p.failure(fmt.Sprintf("not ready in time: waited %v for %v", time.Since(began).Round(time.Millisecond), spec.Ready), ready, ErrNotReady)
}

// copies returns the sockets of the Listeners, owned by the caller.
func (f programStarter) copies(ctx context.Context) (sockets []*os.File, err error) {
	for _, name := range f.spec.Listeners {
		s, err := f.sockets.Copy(ctx, name)
		if err != nil {
			closeFiles(sockets)
			return nil, fmt.Errorf("listener %s: %w", name, err)
		}
		sockets = append(sockets, s)
	}
	return sockets, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // a duplicate
	}
}

// takeOver makes a program that the image of the master before this one has started one of this.
func (f programStarter) takeOver(before *handover.OtherProgram) (supervisor.Instance, error) {
	body, err := f.spawner.takeOver(f.inherited, before.Process, f.request(before.Incarnation, nil))
	if err != nil {
		return nil, fmt.Errorf("coppice: take over %s: %w", f.path, err)
	}
	p := &programInstance{crashes: f.crashes, stops: f.stops, spec: f.spec, body: body, name: f.path, inc: before.Incarnation}
	p.ready.Store(true)
	go p.live() // ends with the process
	return p, nil
}

// request returns how the master handles the process. line is called with each line that it prints.
func (f programStarter) request(incarnation int, line func([]byte)) spawnRequest {
	return spawnRequest{label: output.Line{Name: f.path, Incarnation: incarnation}, grace: f.spec.grace(), line: line}
}

// failure returns the error of a program that has ended and was not ready.
func (p *programInstance) failure(what string, ready *readiness.Probe, is ...error) error {
	status, lines := ready.Last()
	what += ": " + p.Reason().String()
	if status != "" {
		what += "; its status: " + status
	}
	return &startFailure{name: p.name, what: what, tag: p.name, lines: lines, is: append(is, supervisor.Exit(p.Reason()))}
}

// stopTime returns how long the program has from the request to stop until the kill;
// supervisor.Infinity and BrutalKill are returned unchanged.
func (p Process) stopTime() time.Duration {
	if p.Shutdown == 0 {
		return supervisor.DefaultShutdown
	}
	return p.Shutdown
}

// grace returns how long the processes that the program left behind in its group have to end.
func (p Process) grace() time.Duration {
	switch d := p.stopTime(); d {
	case supervisor.BrutalKill:
		return 0
	case supervisor.Infinity:
		return supervisor.DefaultShutdown
	default:
		return d
	}
}

func (p *programInstance) live() {
	ended := p.stops.add(p.name, max(0, p.spec.stopTime())) // without a limit it has none of the plan's
	p.body.finish()
	ended()
	exit := p.body.exit()
	exit.killedFor(&p.killed)
	reason := exit.reason(endContext{p.asked.Load(), p.body.sent(), p.spec.SuccessExit})
	if isCrash(reason, exit) {
		r := CrashReport{Identity: p.identity(), Role: "process", Ready: p.ready.Load(), Reason: reason, Exit: exit}
		p.body.fillReport(&r)
		p.crashes.report(r)
	}
	p.Terminate(reason, nil)
}

// Stop asks the program to end, by the Stop signal of its spec. Towards the end of its time, or at
// once if there is no such signal, its group gets SIGTERM.
func (p *programInstance) Stop() {
	if p.asked.Swap(true) {
		return
	}
	if p.spec.Stop == 0 {
		p.body.terminate()
	} else {
		p.body.ask(p.spec.Stop)
	}
	d := p.spec.stopTime()
	if d < 0 { // without a limit
		return
	}
	share := p.stops.share(time.Now(), d)
	go func() { // ends with the program
		if !p.endedWithin(drainOf(share)) && p.spec.Stop != 0 {
			p.body.terminate()
		}
		if share < d && !p.endedWithin(share-drainOf(share)) { // otherwise its supervisor kills it
			p.Kill()
		}
	}()
}

// endedWithin waits for the program's end, at most d, and reports whether it has ended.
func (p *programInstance) endedWithin(d time.Duration) bool {
	select {
	case <-p.Done():
		return true
	case <-time.After(d):
		return false
	}
}

// Kill ends the program, whether or not it was asked to stop before.
func (p *programInstance) Kill() {
	if p.asked.Load() {
		p.killFor(KilledStop)
	} else {
		p.killFor(KilledBrutal)
	}
}

func (p *programInstance) killFor(why KillReason) {
	p.killed.CompareAndSwap(nil, &why)
	p.body.kill()
}

func (p *programInstance) identity() Identity {
	return Identity{Name: p.name, PID: p.body.pid(), Incarnation: p.inc}
}

func (p *programInstance) Info() any {
	return info{role: "process", Identity: p.identity(), group: p.body.own}
}
