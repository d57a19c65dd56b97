package coppice

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/runtime/internal/notify"
)

// tailLines is how many of its last lines the error of a program that did not
// become ready shows.
const tailLines = 10

// readiness waits until one program is ready.
type readiness struct {
	spec   Ready
	socket *notify.Socket // nil without Ready.Notify
	line   *regexp.Regexp // nil without Ready.Line

	matched chan struct{} // closed when line has matched
	match   func()

	mu     sync.Mutex
	over   bool     // nobody waits any more
	tail   []string // the last lines that it printed, until then
	status string   // the last that it said of itself
}

// newReadiness makes what must be there before the program starts. It is to be
// closed.
func newReadiness(spec Ready) (*readiness, error) {
	r := &readiness{spec: spec, matched: make(chan struct{})}
	r.match = sync.OnceFunc(func() { close(r.matched) })
	var err error
	if spec.Line != "" {
		r.line, err = regexp.Compile(spec.Line)
	}
	if spec.Notify {
		r.socket, err = notify.Listen()
	}
	return r, err
}

// variables are what the program finds the socket by.
func (r *readiness) variables() []string {
	if r.socket == nil {
		return nil
	}
	return []string{r.socket.Environ()}
}

// see takes a line of the program's output, on the goroutine that reads it.
func (r *readiness) see(line []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return
	}
	if len(r.tail) == tailLines {
		r.tail = slices.Delete(r.tail, 0, 1)
	}
	r.tail = append(r.tail, string(line))
	if r.line != nil && r.line.Match(line) {
		r.match()
	}
}

// close ends the waiting, and everything that was made for it.
func (r *readiness) close() {
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	if r.socket != nil {
		_ = r.socket.Close() // a socket without a file
	}
}

// last is what the program said last, for an error.
func (r *readiness) last() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var s string
	if r.status != "" {
		s = "; its status: " + r.status
	}
	if len(r.tail) > 0 {
		s += "; its last lines:\n\t" + strings.Join(r.tail, "\n\t")
	}
	return s
}

// await waits until the program with backend b is ready, and returns nil, or the end
// of the time it has, os.ErrDeadlineExceeded, or ctx's error. When the program ends
// first it returns errEnded.
func (r *readiness) await(ctx context.Context, b *processChild, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, r.wake)
	defer stop()
	go func() { // ends with the program, or the waiting
		select {
		case <-b.done():
			cancel()
		case <-ctx.Done():
		}
	}()
	var err error
	switch {
	case r.spec.Notify:
		err = r.awaitNotice(ctx, b, deadline)
	case r.spec.Network != "":
		err = r.awaitPort(ctx, deadline)
	case r.line != nil:
		err = await(ctx, r.matched, deadline)
	case r.spec.Alive > 0:
		timer := time.NewTimer(r.spec.Alive)
		defer timer.Stop()
		err = await(ctx, timer.C, deadline)
	default:
		return nil
	}
	select {
	case <-b.done(): // also when it was ready just before: it is not now
		return errEnded
	default:
		return err
	}
}

var errEnded = errors.New("ended before it was ready")

// await waits for c.
func await[T any](ctx context.Context, c <-chan T, deadline time.Time) error {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-c:
		return nil
	case <-timer.C:
		return os.ErrDeadlineExceeded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wake ends an awaitNotice.
func (r *readiness) wake() {
	if r.socket != nil {
		_ = r.socket.Close()
	}
}

// awaitNotice waits for READY=1. The program may ask for more time.
func (r *readiness) awaitNotice(ctx context.Context, b *processChild, deadline time.Time) error {
	for {
		m, from, err := r.socket.Receive(deadline)
		if err != nil {
			if cause := ctx.Err(); cause != nil {
				return cause
			}
			return err // os.ErrDeadlineExceeded
		}
		if !speaksFor(from, b.pid()) {
			continue
		}
		if m.Status != "" {
			r.mu.Lock()
			r.status = m.Status
			r.mu.Unlock()
		}
		if m.Extend > 0 {
			if until := time.Now().Add(m.Extend); until.After(deadline) {
				deadline = until
			}
		}
		if m.Ready {
			return nil
		}
	}
}

// speaksFor tells whether who sent a message belongs to the group of the process
// leader. A sender that has ended already, as systemd-notify(1) does at once, is
// known only by its user: that must be the leader's.
func speaksFor(s notify.Sender, leader int) bool {
	group, err := unix.Getpgid(s.PID)
	if !errors.Is(err, unix.ESRCH) {
		return err == nil && group == leader
	}
	var st syscall.Stat_t
	return syscall.Stat(fmt.Sprintf("/proc/%d", leader), &st) == nil && int(st.Uid) == s.UID
}

// Between two attempts to connect.
const (
	dialPoll    = 5 * time.Millisecond
	maxDialPoll = 250 * time.Millisecond
)

// awaitPort waits until somebody accepts a connection.
func (r *readiness) awaitPort(ctx context.Context, deadline time.Time) error {
	d := net.Dialer{Deadline: deadline, Timeout: time.Second}
	for pause := dialPoll; ; pause = min(2*pause, maxDialPoll) {
		conn, err := d.DialContext(ctx, r.spec.Network, r.spec.Address)
		if err == nil {
			return conn.Close()
		}
		late := await(ctx, time.After(min(pause, time.Until(deadline))), deadline)
		if late == nil && !time.Now().Before(deadline) {
			late = os.ErrDeadlineExceeded
		}
		if late != nil {
			return fmt.Errorf("%w: the last attempt: %w", late, err)
		}
	}
}
