package coppice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/cgroup"
	"github.com/coppice-go/coppice/runtime/internal/child"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/notify"
	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/runtime/internal/readiness"
	"github.com/coppice-go/coppice/tracing"
)

// A programChild is a worker of a pool that is another program. The other end of its channel is
// held by a goroutine of the master, as that of a worker that is a goroutine: a [child.Session],
// whose function starts the program, says ready when the program shows it, and asks it to end at
// the drain. The process is the worker in everything else.
type programChild struct {
	worker  *poolWorker
	spec    Process
	session *child.Session
	conn    *fdipc.Conn   // the session's end of the channel
	ended   chan struct{} // closed when the program has ended, or will never be started
	end     func()
	over    chan struct{} // closed when the session is over, which is soon after

	mu       sync.Mutex
	body     *processChild // nil until the program runs
	killed   bool          // perhaps before it ran
	stopped  bool          // it was asked to end
	stopping bool          // it ends by itself
	beat     chan struct{} // closed and replaced with each sign of life
	state    string        // what it does, beside serving: reloading, stopping
	said     string        // its last status
	err      error         // why it was not started
}

// startProgram starts a worker that is another program.
func (w *poolWorker) startProgram() error {
	p := &programChild{
		worker: w, ended: make(chan struct{}), over: make(chan struct{}), beat: make(chan struct{}),
		spec: Process{Command: w.driver.pool.Command, Environment: w.driver.pool.Environment, Listeners: w.driver.pool.Listeners},
	}
	p.end = sync.OnceFunc(func() { close(p.ended) })
	cfg := w.driver.backends.child
	cfg.Program = func(_, _ string, s *child.Session) (child.Program, bool) {
		self := &Worker{c: s}
		return child.Program{
			Prepare: func(ctx context.Context) error { return p.prepare(ctx) },
			Run:     func(ctx context.Context) error { return p.run(ctx, self) },
			Check:   p.check,
		}, true
	}
	p.session = child.New(cfg)
	w.backend = p // before the channel, whose end uses it
	w.conn, p.conn = fdipc.Pipe(w.transport(), p.session.ConnConfig())
	go p.live() // ends with the program; the end of the worker waits for it
	return nil
}

// live runs the session to its end, which is that of the program.
func (p *programChild) live() {
	defer close(p.over)
	shared := sharedPipeline{p.worker.driver.backends.pipeline}
	notice := p.session.Run(p.conn, func(childproto.Hello) tracing.Pipeline { return shared })
	if p.process() != nil { // it may be a spare that was not assigned
		p.stop()
		<-p.ended
	}
	p.end()
	p.session.CloseSockets()
	p.session.End(notice)
}

// process returns the process; nil if there is none yet.
func (p *programChild) process() *processChild {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.body
}

// prepare starts a spare. Its sockets are not of a slot.
func (p *programChild) prepare(ctx context.Context) error {
	if p.worker.hello.Slot != pool.Spare {
		return nil
	}
	var sockets []*os.File
	err := p.worker.driver.shortages.retry(ctx, p.worker.name(), func() (err error) {
		sockets, err = programStarter{spec: p.spec, sockets: p.worker.driver.children.sockets}.copies(ctx)
		return startError(p.worker.name(), err)
	})
	if err != nil {
		return p.failed(err)
	}
	defer closeFiles(sockets)
	return p.start(ctx, sockets)
}

// run is the worker function: it returns when the program has ended.
func (p *programChild) run(ctx context.Context, w *Worker) error {
	sockets, err := p.listen(ctx, w)
	if err != nil {
		return p.failed(err)
	}
	if p.process() == nil {
		err = p.start(ctx, sockets)
	}
	closeFiles(sockets)
	if err == nil {
		err = w.Ready()
	}
	if p.process() == nil {
		return err
	}
	select {
	case <-ctx.Done():
		p.stop()
		_ = w.c.Listeners().Close() // as a worker does when its drain begins: no process accepts any more on the socket of a slot that is removed
		<-p.ended
	case <-p.ended:
		w.c.Listeners().Fail() // as when a process ends: its slot keeps its sockets
	}
	return err
}

// listen asks the master for the sockets as any worker does, so that the table of sockets knows the
// worker, and returns duplicates for the program, owned by the caller. The worker closes its own at
// its end.
func (p *programChild) listen(ctx context.Context, w *Worker) (sockets []*os.File, err error) {
	for _, name := range p.spec.Listeners {
		try := func(f func() error) error {
			return p.worker.driver.shortages.retry(ctx, p.worker.name(), func() error {
				err := f()
				if err != nil {
					err = fmt.Errorf("listener %s: %w", name, err)
				}
				return startError(p.worker.name(), err)
			})
		}
		var l any
		var file *os.File
		err = try(func() (err error) {
			if l, err = w.Listener(ctx, name); errors.Is(err, syscall.EPROTOTYPE) {
				l, err = w.PacketConn(ctx, name)
			}
			return err
		})
		if err == nil {
			err = try(func() (err error) { // by itself: what is asked for twice is another socket
				file, err = l.(interface{ File() (*os.File, error) }).File() // its policy is not one of those that hand over
				return err
			})
		}
		if err != nil {
			closeFiles(sockets)
			return nil, err
		}
		sockets = append(sockets, file)
	}
	return sockets, nil
}

// failed notes why the program was not started.
func (p *programChild) failed(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
	return err
}

// start starts the program and waits until it is ready, or has ended, or ctx ends.
func (p *programChild) start(ctx context.Context, sockets []*os.File) error {
	w, spec := p.worker, p.worker.driver.pool
	var ready *readiness.Probe
	var body *processChild
	err := w.driver.shortages.retry(ctx, w.name(), func() (err error) {
		if ready, err = readiness.New(readiness.Condition(spec.Ready)); err != nil {
			return startError(w.name(), err)
		}
		ready.Said = p.heard
		how := workerStart{hello: w.hello, place: w.assigned.Load}.request()
		how.line = ready.See
		body, err = w.driver.backends.forkProgram(ctx, p.spec, spec.Size, sockets, w.gen.environ, how, append(p.variables(), ready.Variables()...)...)
		if err != nil {
			ready.Close()
		}
		return err
	})
	if err != nil {
		return p.failed(err)
	}
	p.mu.Lock()
	p.body = body
	killed := p.killed
	p.mu.Unlock()
	if killed {
		body.kill()
	}
	go func() { // ends with the program
		<-body.exited()
		ready.Close()
		p.end()
	}()
	const unbounded = 24 * time.Hour // the master has its StartTimeout
	if err := ready.Await(ctx, body.pid(), body.exited(), unbounded); err != nil {
		return err
	}
	go ready.Follow(body.pid()) // ends with the program
	return nil
}

// variables are those by which the program knows what it is.
func (p *programChild) variables() []string {
	h, spec := p.worker.self(), p.worker.driver.pool
	vars := []string{"COPPICE_NAME=" + h.Name, "COPPICE_GENERATION=" + strconv.Itoa(h.Generation), "COPPICE_SLOT", "WATCHDOG_USEC"}
	if h.Slot != pool.Spare {
		vars[2] += "=" + strconv.Itoa(h.Slot)
	}
	if d := spec.Liveness.Timeout; d > 0 {
		vars[3] += "=" + strconv.FormatInt(d.Microseconds(), 10)
	}
	return vars
}

// heard takes a message of the program.
func (p *programChild) heard(m notify.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.Watchdog || m.Stopping { // no check waits on for a program that is stopping
		close(p.beat)
		p.beat = make(chan struct{})
	}
	if m.Status != "" {
		p.said = m.Status
	}
	switch {
	case m.Stopping && !p.stopping:
		p.stopping, p.state = true, "stopping"
		p.worker.unlessEnded(cmp.Or(max(p.worker.driver.pool.Shutdown, 0), defaultPoolShutdown), p.worker.Kill)
	case p.stopping:
	case m.Reloading:
		p.state = "reloading"
	case m.Ready:
		p.state = ""
	}
}

// status returns what the program says that it does.
func (p *programChild) status() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state != "" && p.said != "" {
		return p.state + ": " + p.said
	}
	return p.state + p.said
}

// check waits for the next sign of life.
func (p *programChild) check(ctx context.Context) error {
	p.mu.Lock()
	beat, stopping := p.beat, p.stopping
	p.mu.Unlock()
	if stopping {
		return nil
	}
	select {
	case <-beat:
		return nil
	case <-ctx.Done():
		return errors.New("no WATCHDOG=1 on its NOTIFY_SOCKET")
	}
}

// stop asks the program to end.
func (p *programChild) stop() {
	p.mu.Lock()
	first := !p.stopped
	p.stopped = true
	p.mu.Unlock()
	switch sig := p.worker.driver.pool.Stop; {
	case !first, childproto.IsClosed(p.ended):
	case sig == 0:
		p.body.terminate()
	default:
		p.body.ask(sig)
	}
}

// asked does nothing: the signals that follow are noted.
func (p *programChild) asked(string) {}

// terminate is the last warning. A program that was asked by the same signal needs none.
func (p *programChild) terminate() {
	switch b := p.process(); {
	case b == nil:
		p.session.BeginDrain(0, 0)
	case p.worker.driver.pool.Stop != 0 || !b.sent().has(syscall.SIGTERM):
		b.terminate()
	}
}

func (p *programChild) abort() {
	if b := p.process(); b != nil {
		b.abort()
		return
	}
	p.kill()
}

func (p *programChild) kill() {
	p.mu.Lock()
	p.killed = true
	b := p.body
	p.mu.Unlock()
	if b != nil {
		b.kill()
		return
	}
	p.session.BeginDrain(0, 0)
	go p.conn.Close() // ends when the channel is closed; kill does not wait
}

func (p *programChild) exited() <-chan struct{} { return p.ended }

func (p *programChild) finish() {
	<-p.ended
	if !p.session.HasSlot() { // a spare that waits for one
		p.session.BeginDrain(0, 0)
	}
	<-p.over
	if b := p.process(); b != nil {
		b.finish()
	}
}

// now returns what runs now: the process, or nothing.
func (p *programChild) now() backend {
	if b := p.process(); b != nil {
		return b
	}
	return &goroutineChild{began: time.Now()}
}

func (p *programChild) group() *cgroup.Cgroup          { return p.now().group() }
func (p *programChild) pid() int                       { return p.now().pid() }
func (p *programChild) exit() Exit                     { return p.now().exit() }
func (p *programChild) sent() signals                  { return p.now().sent() }
func (p *programChild) printedLast() []string          { return p.now().printedLast() }
func (p *programChild) dump() string                   { return p.now().dump() }
func (p *programChild) fillReport(r *CrashReport)      { p.now().fillReport(r) }
func (p *programChild) waited() (time.Duration, error) { return p.now().waited() }
func (p *programChild) traced() bool                   { return p.now().traced() }
func (p *programChild) leaked() <-chan struct{}        { return nil }

func (p *programChild) cause() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}
