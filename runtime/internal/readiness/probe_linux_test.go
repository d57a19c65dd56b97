package readiness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// TestAwait: what each condition makes of a program that shows its sign, of one that does not, of
// one that ends, and of a start that is no longer wanted.
func TestAwait(t *testing.T) {
	const timeout = 10 * time.Second
	for _, tt := range []struct {
		name string
		spec Condition
		does func(p *Probe, end, cancel func())
		err  error
		took time.Duration
	}{
		{"no condition", Condition{}, nil, nil, 0},
		{"no condition, ended", Condition{}, func(_ *Probe, end, _ func()) { end() }, nil, 0},
		{"alive", Condition{Alive: time.Second}, nil, nil, time.Second},
		{"alive for too long", Condition{Alive: time.Minute}, nil, os.ErrDeadlineExceeded, timeout},
		{"ends while it should live", Condition{Alive: time.Second}, func(_ *Probe, end, _ func()) { time.AfterFunc(time.Second/2, end) }, ErrEnded, time.Second / 2},
		{"not wanted", Condition{Alive: time.Second}, func(_ *Probe, _, cancel func()) { time.AfterFunc(time.Second/2, cancel) }, context.Canceled, time.Second / 2},
		{"the line", Condition{Line: "^listening"}, func(p *Probe, _, _ func()) {
			p.See([]byte("not listening yet"))
			time.AfterFunc(time.Second, func() { p.See([]byte("listening on 80")) })
		}, nil, time.Second},
		{"before the wait", Condition{Line: "up"}, func(p *Probe, _, _ func()) { p.See([]byte("up")) }, nil, 0},
		{"another line", Condition{Line: "up"}, func(p *Probe, _, _ func()) { p.See([]byte("down")) }, os.ErrDeadlineExceeded, timeout},
		{"the line of a program that has ended", Condition{Line: "up"}, func(p *Probe, end, _ func()) { p.See([]byte("up")); end() }, ErrEnded, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, err := New(tt.spec)
				if err != nil {
					t.Fatal(err)
				}
				defer p.Close()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan struct{})
				if tt.does != nil {
					tt.does(p, func() { close(done) }, cancel)
				}
				began := time.Now()
				err = p.Await(ctx, os.Getpid(), done, timeout)
				if !errors.Is(err, tt.err) || time.Since(began) != tt.took {
					t.Errorf("after %v: %v, want %v after %v", time.Since(began), err, tt.err, tt.took)
				}
			})
		})
	}
}

// TestAwaitNotice: the program's group may say READY=1, give a status, and ask for more time; a
// process outside the group may not.
func TestAwaitNotice(t *testing.T) {
	group, err := unix.Getpgid(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		leader int
		says   []string
		err    error
	}{
		{"ready", group, []string{"READY=1"}, nil},
		{"with a status, and more time", group, []string{"STATUS=reading", "EXTEND_TIMEOUT_USEC=60000000", "READY=1"}, nil},
		{"nothing", group, nil, os.ErrDeadlineExceeded},
		{"another group's", group + 1, []string{"READY=1"}, os.ErrDeadlineExceeded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := New(Condition{Notify: true})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			_, address, _ := strings.Cut(p.Variables()[0], "=")
			c, err := net.Dial("unixgram", address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, s := range tt.says {
				if _, err := c.Write([]byte(s)); err != nil {
					t.Fatal(err)
				}
			}
			timeout := time.Minute
			if tt.err != nil {
				timeout = 50 * time.Millisecond
			}
			if err := p.Await(t.Context(), tt.leader, make(chan struct{}), timeout); !errors.Is(err, tt.err) {
				t.Errorf("%v, want %v", err, tt.err)
			}
			if status, _ := p.Last(); len(tt.says) == 3 && status != "reading" {
				t.Errorf("status %q", status)
			}
		})
	}
}

// TestAwaitPort: the program is ready when its port takes a connection.
func TestAwaitPort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(Condition{Network: "tcp", Address: ln.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Await(t.Context(), os.Getpid(), make(chan struct{}), time.Minute); err != nil {
		t.Error(err)
	}
	_ = ln.Close()
	for timeout := 20 * time.Millisecond; !errors.Is(err, unix.ECONNREFUSED); timeout *= 2 { // until it suffices for an attempt
		err = p.Await(t.Context(), os.Getpid(), make(chan struct{}), timeout)
		if !errors.Is(err, os.ErrDeadlineExceeded) || timeout > time.Minute {
			t.Fatalf("a closed port: %v", err)
		}
	}
}

// TestLastLines: the error of a program that did not become ready has its last lines, and none that
// it prints after the wait.
func TestLastLines(t *testing.T) {
	p, err := New(Condition{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range tailLines + 2 {
		p.See(fmt.Appendf(nil, "line %d", i))
	}
	p.Close()
	p.See([]byte("late"))
	_, lines := p.Last()
	if len(lines) != tailLines || lines[0] != "line 2" || lines[tailLines-1] != fmt.Sprintf("line %d", tailLines+1) {
		t.Errorf("last lines %q", lines)
	}
}

// TestBadPattern: a line that is no pattern is an error before the program starts.
func TestBadPattern(t *testing.T) {
	if _, err := New(Condition{Line: "("}); err == nil {
		t.Error("no error")
	}
}
