package hosts

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
)

// DefaultSettle is how long a host that was reloaded has to stay well before the next one is.
const DefaultSettle = 10 * time.Second

// MaxSettle bounds Reload.Settle.
const MaxSettle = time.Hour

// orderWait is how long a host that has an order may not answer before it counts as lost: its
// master is stopped, perhaps.
const orderWait = 10 * time.Second

// A Reload is a reload of several hosts, one after the other.
type Reload struct {
	// Hosts are those to be reloaded; none: all of Config.Peers and this one. They are reloaded in
	// the order of their names, this one last.
	Hosts []string
	// Settle is how long each has to stay well before the next one's turn: no worker of the new
	// generation fails. Zero: DefaultSettle. At most MaxSettle.
	Settle time.Duration
}

// A HostsReloadError says how a reload of several hosts has failed, and what each host runs now.
type HostsReloadError struct {
	Host string // at which it has failed
	// Lost: the host was lost, and it is not known what it runs. Then the others stay as they are.
	Lost     bool
	Reloaded []string // run the new program
	Back     []string // had been reloaded, and run the program of before again
	Stuck    []string // had been reloaded, and could not go back
	Err      error
}

// Error says all in one line.
func (e *HostsReloadError) Error() string {
	s := fmt.Sprintf("hosts: reload: host %s: %v", e.Host, e.Err)
	if e.Lost {
		s = fmt.Sprintf("hosts: reload: host %s is lost, and it is not known what it runs: %v", e.Host, e.Err)
	}
	for _, part := range []struct {
		hosts []string
		is    string
	}{{e.Reloaded, "run the new program"}, {e.Back, "have gone back"}, {e.Stuck, "could not go back"}} {
		if len(part.hosts) > 0 {
			s += "; " + strings.Join(part.hosts, ", ") + " " + part.is
		}
	}
	return s
}

// Unwrap returns Err.
func (e *HostsReloadError) Unwrap() error { return e.Err }

// What a master asks of another, or of itself.
type (
	hostOrder struct {
		From, Nonce string // the master that asks, which is asked whether it does
		Turn        string // of one reload
		Do          string
		Settle      time.Duration
	}
	hostOrdered struct{ Err string }
	// hostConfirm asks a master whether an order is its own.
	hostConfirm struct{ Nonce string }
)

func init() {
	actors.RegisterType[hostOrder]("coppice.hosts.order")
	actors.RegisterType[hostOrdered]("coppice.hosts.ordered")
	actors.RegisterType[hostConfirm]("coppice.hosts.confirm")
}

// What a host is asked to do.
const (
	doHold   = "hold"   // no other leader reloads it
	doReload = "reload" // and stay well for Settle
	doBack   = "back"
	doFree   = "free" // keep what there is
)

// A turn is a reload of several hosts that one host takes part in.
type turn struct {
	name   string
	leader string             // the address of the master that leads it
	end    context.CancelFunc // of the watch of that master

	// Guarded by operator.mu.
	nonce string             // of the order to reload
	stop  context.CancelFunc // of the reload; nil: it has not begun
	over  bool               // it is not to begin any more

	done chan struct{}       // closed when it has ended, and gone back if it has failed
	err  error               // of the reload; read after done
	held *coppice.HeldReload // nil: it was not reloaded; likewise

	ending sync.Mutex // held while the reload is kept or taken back
	undone error      // of Back
}

// order has a host do something, and waits for the end.
func (o *operator) order(ctx context.Context, host string, x hostOrder) error {
	x.From, x.Nonce = o.system.Address(), rand.Text()
	o.mu.Lock()
	o.nonces[x.Nonce] = struct{}{}
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.nonces, x.Nonce)
	}()
	to := o.system.Lookup(masterName + "/" + operatorName)
	if host != o.cfg.Name {
		to = o.system.LookupAt(host, masterName+"/"+operatorName)
	}
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	go o.watch(ctx, to, giveUp) // ends with ctx
	for {
		a, err := actors.Ask[hostOrdered](ctx, o.system, to, x)
		switch {
		case err == nil && a.Err != "":
			return errors.New(a.Err)
		case err == nil:
			return nil
		case !laneEnded(err):
			return &lostError{cmp.Or(context.Cause(ctx), err)}
		}
		o.pause(ctx) // then again: who has the order already does it once
	}
}

// watch gives an order up when the master that has it does not answer for orderWait.
func (o *operator) watch(ctx context.Context, to *actor.PID, giveUp context.CancelCauseFunc) {
	limit := cmp.Or(o.cfg.orderWait, orderWait)
	for answered := time.Now(); ctx.Err() == nil; o.pause(ctx) {
		ask, cancel := context.WithTimeout(ctx, limit)
		_, err := actors.Ask[bool](ask, o.system, to, hostConfirm{})
		cancel()
		if err == nil {
			answered = time.Now()
		} else if time.Since(answered) >= limit {
			giveUp(errNoAnswer)
		}
	}
}

// pause is before the next try of what has failed, or the next look.
func (o *operator) pause(ctx context.Context) {
	select {
	case <-time.After(snapshotWait / 10):
	case <-ctx.Done():
	}
}

// laneEnded reports whether an error says no more than that the lane has ended: the process at its
// other end may live.
func laneEnded(err error) bool {
	return errors.Is(err, actors.ErrLane) && !errors.Is(err, actors.ErrUnreachable)
}

// gone waits until a process has ended or is not reached, and returns why; nil if ctx has ended.
func (o *operator) gone(ctx context.Context, address string) error {
	for ctx.Err() == nil {
		m := o.system.Monitor(actors.ProcessPID(address))
		select {
		case d := <-m.C:
			if err := d.Reason.Err(); !laneEnded(err) {
				return fmt.Errorf("the process %s: %w", address, cmp.Or(err, actors.ErrDown))
			}
			o.pause(ctx)
		case <-ctx.Done():
			m.Cancel()
		}
	}
	return nil
}

// A lostError says that it is not known what a host has done.
type lostError struct{ error }

func (e *lostError) Unwrap() error { return e.error }

// ordered does what a master has asked for, which confirms it: a worker can send such a message,
// but not answer in the place of a master.
func (o *operator) ordered(c actor.Context, x hostOrder) {
	asker := c.Sender()
	if asker == nil || !strings.HasSuffix(x.From, ".0") { // the master's number
		return
	}
	select {
	case o.answers <- struct{}{}:
	default: // said, as the asker would wait for as long as this master answers it anything
		c.Respond(hostOrdered{actors.ErrBusy.Error()})
		return
	}
	go func() { // ends with the order, or the master that has asked
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() { // ends with ctx
			if o.gone(ctx, x.From) != nil {
				cancel()
			}
		}()
		sure, err := o.waits(ctx, x.From, x.Nonce)
		<-o.answers
		if err == nil && sure {
			o.cfg.log().Info("hosts: an order of a host", "from", x.From, "order", x.Do)
			err = o.obey(ctx, x)
		} else if err == nil {
			err = errors.New("the order is not that of a master")
		}
		var a hostOrdered
		if err != nil {
			a.Err = err.Error()
			o.cfg.log().Warn("hosts: an order of a host has failed", "from", x.From, "order", x.Do, "err", err)
		}
		_ = o.system.Send(context.Background(), asker, a)
		if x.Do == doReload && err != nil {
			o.freeOver(ctx, "")
		}
	}()
}

// waits asks a master whether it waits for the end of an order, or leads a turn.
func (o *operator) waits(ctx context.Context, master, nonce string) (bool, error) {
	for {
		yes, err := actors.Ask[bool](ctx, o.system, actor.NewPID(master, operatorName), hostConfirm{nonce})
		if !laneEnded(err) || ctx.Err() != nil {
			return yes, err
		}
		o.pause(ctx)
	}
}

// obey does what is ordered.
func (o *operator) obey(ctx context.Context, x hostOrder) error {
	if x.Do == doHold {
		o.freeOver(ctx, x.Turn)
	}
	o.mu.Lock()
	t := o.turn
	if x.Do == doHold && t == nil {
		watch, end := context.WithCancel(context.Background())
		o.turn = &turn{name: x.Turn, leader: x.From, end: end}
		go o.freeWith(watch, o.turn, x.From) // ends with the turn
		o.mu.Unlock()
		return nil
	}
	var err error
	begun := t != nil && t.stop != nil
	switch {
	case t == nil:
		err = errors.New("that reload of several hosts has ended here")
	case t.name != x.Turn:
		err = errors.New("another reload of several hosts is under way")
	case x.Do == doReload && begun && t.nonce != x.Nonce, x.Do == doReload && t.over:
		err = errors.New("it was reloaded")
	case x.Do == doReload && !begun:
		ctx, t.stop = context.WithCancel(ctx)
		t.nonce, t.done = x.Nonce, make(chan struct{})
	}
	o.mu.Unlock()
	if err != nil {
		return err
	}
	switch x.Do {
	case doHold: // again
		return nil
	case doReload:
		if !begun {
			o.reload(ctx, t, x)
		}
		<-t.done // which ends with the host that leads
		return t.err
	case doBack:
		return o.back(t)
	case doFree:
		o.free(t)
		return nil
	}
	return fmt.Errorf("%q: %w", x.Do, coppice.ErrUnsupported)
}

// freeOver ends the turn that holds this host if its leader says that it is over: the order to end
// it was lost. Not the one of a name.
func (o *operator) freeOver(ctx context.Context, but string) {
	o.mu.Lock()
	t := o.turn
	o.mu.Unlock()
	if t == nil || t.name == but {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, snapshotWait)
	defer cancel()
	if on, err := o.waits(ctx, t.leader, t.name); err == nil && !on {
		o.free(t)
	}
}

// reload reloads this host, and goes back if the new workers are not well, or who leads it has
// given this host up.
func (o *operator) reload(ctx context.Context, t *turn, x hostOrder) {
	defer close(t.done)
	cursor := o.rt.Snapshot().Cursor // a worker may fail before the reload has ended
	held, err := o.rt.ReloadHeld(ctx)
	if err != nil {
		t.err = err
		return
	}
	if err = o.settle(ctx, cursor, held.Generation, x.Settle); err == nil {
		var waits bool
		if waits, err = o.waits(ctx, x.From, x.Nonce); err == nil && !waits {
			err = errors.New("the host that leads the reload has given this one up")
		}
	}
	if err != nil {
		t.err = errors.Join(err, held.Back(context.Background())) // by its own bounds
		return
	}
	t.held = held
}

// freeWith ends the turn when the master that leads it has ended, or is not reached.
func (o *operator) freeWith(ctx context.Context, t *turn, leader string) {
	if err := o.gone(ctx, leader); err != nil {
		o.cfg.log().Warn("hosts: the host that leads a reload of several hosts is lost", "leader", leader, "err", err)
		o.free(t)
	}
}

// ended ends the reload of this host, if it is under way, and returns what it has kept. It is
// called with t.ending.
func (o *operator) ended(t *turn) *coppice.HeldReload {
	o.mu.Lock()
	t.over = true
	stop := t.stop
	o.mu.Unlock()
	if stop == nil {
		return nil
	}
	stop()
	<-t.done
	held := t.held
	t.held = nil
	return held
}

// free keeps what this host runs, and lets others reload it.
func (o *operator) free(t *turn) {
	t.ending.Lock()
	o.ended(t).Keep()
	t.ending.Unlock()
	t.end()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.turn == t {
		o.turn = nil
	}
}

// back takes the reload of this host back, if there was one. Again it returns the same.
func (o *operator) back(t *turn) error {
	t.ending.Lock()
	defer t.ending.Unlock()
	if held := o.ended(t); held != nil {
		t.undone = held.Back(context.Background()) // by its own bounds
	}
	return t.undone
}

// settle waits for a time in which no worker of a generation fails, nor has failed since a cursor.
func (o *operator) settle(ctx context.Context, cursor uint64, generation int, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for ev := range o.rt.Events(cursor).All(ctx) {
		if ev.Fault && ev.Generation == generation && (ev.Kind == coppice.ChildExited || ev.Kind == coppice.WorkerFailed || ev.Kind == coppice.ChildStartFailed) {
			return fmt.Errorf("after the reload: %s", ev)
		}
	}
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errors.New("the host that leads the reload is lost")
	}
	return nil
}

// Reload reloads hosts, one after the other, each by what its master would do for
// Runtime.Reload, and the next only when the one before has its new workers and they have stayed
// well for Settle. All hosts must be reached when it begins, and none may take part in another one.
//
// When a host fails, it goes back, and so do those that were reloaded before, the last first. When
// a host is lost midway, or its master does not answer for 10 s, it stops: what that host runs is
// not known, and the others stay as they are. Either is a HostsReloadError. The end of ctx is a
// failure of the host whose turn it is. When the master that leads it is lost, the host whose turn
// it is goes back, and the others stay as they are.
//
// It runs in the master: in a Func, or a hook. say, which may be nil, gets how it goes on, a
// line a call.
func (c *Config) Reload(ctx context.Context, r Reload, say func(string)) error {
	o := operating.Load()
	if o == nil {
		return errors.New("hosts: reload: this process is not a master with this configuration")
	}
	if r.Settle = cmp.Or(r.Settle, DefaultSettle); r.Settle < 0 || r.Settle > MaxSettle {
		return fmt.Errorf("hosts: reload: Settle %v is not between 0 and %v", r.Settle, MaxSettle)
	}
	if say == nil {
		say = func(string) {}
	}
	all, err := o.toReload(ctx, r.Hosts)
	if err != nil {
		return fmt.Errorf("hosts: reload: %w", err)
	}
	x := hostOrder{Turn: rand.Text(), Settle: r.Settle}
	o.mu.Lock()
	o.nonces[x.Turn] = struct{}{} // see freeOver
	o.mu.Unlock()
	do := func(ctx context.Context, host, what string) error {
		x := x
		x.Do = what
		return o.order(ctx, host, x)
	}
	last := context.WithoutCancel(ctx)
	var held, reloaded []string
	defer func() {
		o.mu.Lock()
		delete(o.nonces, x.Turn)
		o.mu.Unlock()
		for _, host := range held {
			ctx, cancel := context.WithTimeout(last, snapshotWait)
			_ = do(ctx, host, doFree) // a host that is lost frees itself
			cancel()
		}
	}()
	for _, host := range all {
		if err := do(ctx, host, doHold); err != nil {
			return fmt.Errorf("hosts: reload: host %s: %w; nothing was reloaded", host, err)
		}
		held = append(held, host)
	}
	for i, host := range all {
		say(fmt.Sprintf("%s: reloads, %d of %d", host, i+1, len(all)))
		err := do(ctx, host, doReload)
		if err == nil {
			say(fmt.Sprintf("%s: has its new workers, which were well for %v", host, r.Settle))
			reloaded = append(reloaded, host)
			continue
		}
		failed := &HostsReloadError{Host: host, Err: err}
		if _, lost := errors.AsType[*lostError](err); lost && ctx.Err() == nil {
			failed.Lost, failed.Reloaded = true, reloaded
			return failed
		}
		if ctx.Err() != nil { // it is still at it, perhaps
			reloaded = append(reloaded, host)
		}
		for _, host := range slices.Backward(reloaded) {
			say(host + ": goes back")
			if err := do(last, host, doBack); err != nil {
				failed.Stuck = append(failed.Stuck, host)
				failed.Err = errors.Join(failed.Err, fmt.Errorf("host %s: %w", host, err))
			} else {
				failed.Back = append(failed.Back, host)
			}
		}
		return failed
	}
	return nil
}

// toReload returns the hosts in their order. Each must be reached.
func (o *operator) toReload(ctx context.Context, which []string) (all []string, err error) {
	m, err := AskMembers(ctx, o.system)
	if err != nil {
		return nil, err
	}
	states := make(map[string]HostInfo)
	for _, h := range m.Hosts {
		states[h.Name] = h
		if len(which) == 0 || slices.Contains(which, h.Name) {
			all = append(all, h.Name)
		}
	}
	for _, name := range which {
		if _, ok := states[name]; !ok {
			err = errors.Join(err, fmt.Errorf("host %s: %w", name, actors.ErrNoHost))
		}
	}
	for _, name := range all {
		if h := states[name]; h.State != HostUp && h.State != HostSelf {
			err = errors.Join(err, fmt.Errorf("host %s is not reached: %s", name, cmp.Or(h.Why, string(h.State))))
		}
	}
	if i := slices.Index(all, o.cfg.Name); i >= 0 {
		all = append(slices.Delete(all, i, i+1), o.cfg.Name)
	}
	return all, err
}
