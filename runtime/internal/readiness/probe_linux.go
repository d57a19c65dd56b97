package readiness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/runtime/internal/notify"
)

// tailLines is how many of a program's last lines are kept for the error of a program that did not
// become ready.
const tailLines = 10

// ErrEnded is returned by [Probe.Await] when the program ends before it is ready.
var ErrEnded = errors.New("ended before it was ready")

// A Probe waits until one program is ready.
type Probe struct {
	spec   Condition
	socket *notify.Socket // nil without Condition.Notify
	line   *regexp.Regexp // nil without Condition.Line

	matched chan struct{} // closed when line has matched
	match   func()

	// Said, if set, is called with each message of the program, one at a time. Set it before the
	// program starts.
	Said func(notify.Message)

	mu     sync.Mutex
	over   bool     // the wait has ended
	tail   []string // the last lines that the program printed before the wait ended
	status string   // the last status that it sent
}

// New makes what must exist before the program starts. The caller closes the Probe.
func New(spec Condition) (*Probe, error) {
	p := &Probe{spec: spec, matched: make(chan struct{})}
	p.match = sync.OnceFunc(func() { close(p.matched) })
	var err error
	if spec.Line != "" {
		p.line, err = regexp.Compile(spec.Line)
	}
	if spec.Notify {
		p.socket, err = notify.Listen()
	}
	return p, err
}

// Variables returns the environment variables by which the program finds the socket.
func (p *Probe) Variables() []string {
	if p.socket == nil {
		return nil
	}
	return []string{p.socket.Environ()}
}

// See records a line of the program's output, on the goroutine that reads it.
func (p *Probe) See(line []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return
	}
	if len(p.tail) == tailLines {
		p.tail = slices.Delete(p.tail, 0, 1)
	}
	p.tail = append(p.tail, string(line))
	if p.line != nil && p.line.Match(line) {
		p.match()
	}
}

// Close ends the wait and releases the socket.
func (p *Probe) Close() {
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	if p.socket != nil {
		_ = p.socket.Close() // a socket without a file
	}
}

// Last returns the status that the program sent last, and its last lines.
func (p *Probe) Last() (status string, lines []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status, slices.Clone(p.tail)
}

// Await waits until the program is ready. pid is its process, which leads its group, and done is
// closed when it has ended. Await returns os.ErrDeadlineExceeded at the end of timeout, ctx's
// error, or ErrEnded.
func (p *Probe) Await(ctx context.Context, pid int, done <-chan struct{}, timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, p.wake)
	defer stop()
	go func() { // ends with the program, or the wait
		select {
		case <-done:
			cancel()
		case <-ctx.Done():
		}
	}()
	var err error
	switch {
	case p.spec.Notify:
		err = p.awaitNotice(ctx, pid, deadline)
	case p.spec.Network != "":
		err = p.awaitPort(ctx, deadline)
	case p.line != nil:
		err = await(ctx, p.matched, deadline)
	case p.spec.Alive > 0:
		err = await(ctx, time.After(p.spec.Alive), deadline)
	default:
		return nil
	}
	select {
	case <-done: // also if it was ready just before, because now it is not
		return ErrEnded
	default:
		return err
	}
}

// await waits until c has a value or is closed.
func await[T any](ctx context.Context, c <-chan T, deadline time.Time) error {
	select {
	case <-c:
		return nil
	case <-time.After(time.Until(deadline)):
		return os.ErrDeadlineExceeded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wake ends an awaitNotice.
func (p *Probe) wake() {
	if p.socket != nil {
		_ = p.socket.Close()
	}
}

// awaitNotice waits for READY=1. The program may ask for more time.
func (p *Probe) awaitNotice(ctx context.Context, leader int, deadline time.Time) error {
	for {
		m, from, err := p.socket.Receive(deadline)
		if err != nil {
			if cause := ctx.Err(); cause != nil {
				return cause
			}
			return err // os.ErrDeadlineExceeded
		}
		if !speaksFor(from, leader) {
			continue
		}
		if m.Status != "" {
			p.mu.Lock()
			p.status = m.Status
			p.mu.Unlock()
		}
		if p.Said != nil {
			p.Said(m)
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

// Follow passes the messages of a program that is ready to Said, until Close.
func (p *Probe) Follow(leader int) {
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	for p.socket != nil {
		m, from, err := p.socket.Receive(time.Time{})
		if err != nil {
			return
		}
		if speaksFor(from, leader) {
			p.Said(m)
		}
	}
}

// speaksFor reports whether the sender of a message belongs to the group of the process leader. If
// the sender has ended already, as systemd-notify(1) does at once, only its user is known: it must
// be the leader's.
func speaksFor(s notify.Sender, leader int) bool {
	group, err := unix.Getpgid(s.PID)
	if !errors.Is(err, unix.ESRCH) {
		return err == nil && group == leader
	}
	var st syscall.Stat_t
	return syscall.Stat(fmt.Sprintf("/proc/%d", leader), &st) == nil && int(st.Uid) == s.UID
}

// The pause between two attempts to connect.
const (
	dialPoll    = 5 * time.Millisecond
	maxDialPoll = 250 * time.Millisecond
)

// awaitPort waits until a connection to the address succeeds.
func (p *Probe) awaitPort(ctx context.Context, deadline time.Time) error {
	d := net.Dialer{Deadline: deadline, Timeout: time.Second}
	for pause := dialPoll; ; pause = min(2*pause, maxDialPoll) {
		conn, err := d.DialContext(ctx, p.spec.Network, p.spec.Address)
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
