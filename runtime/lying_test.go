package coppice

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// TestLyingChild: the lines of log that a child can cause by frames that mean
// nothing grow with the logarithm of their number.
func TestLyingChild(t *testing.T) {
	var b bytes.Buffer
	p := &poolWorker{
		driver:   &poolDriver{poolParts: poolParts{log: slog.New(slog.NewTextHandler(&b, nil))}},
		hello:    childproto.Hello{ID: 3},
		attached: make(chan struct{}),
	}
	p.assigned.Store(&assignment{name: "web/0"})
	close(p.attached)
	const frames = 100_000
	for range frames {
		p.handle(nil, &fdipc.Frame{Kind: childproto.FrameExitNotice, Payload: []byte("{")})
	}
	lines := strings.Count(b.String(), "\n")
	if lines != 17 || !strings.Contains(b.String(), "frames=65536") {
		t.Errorf("%d frames caused %d lines, the last: %s", frames, lines, b.String()[max(0, b.Len()-300):])
	}
}

// TestSilentMaster: a child whose channel is a socket behind which nobody speaks
// gives up, and says why.
func TestSilentMaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChild(Config{}.defaults(), &node{})
		mine, its := fdipc.Pipe(fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) {}}, c.transport())
		began := time.Now()
		bye := c.run(its, nil)
		if bye.Kind != childproto.NoticeUnfit || !strings.Contains(bye.Text, "no welcome") || time.Since(began) != helloTimeout {
			t.Errorf("after %v: %+v", time.Since(began), bye)
		}
		_, _ = its.Close(), mine.Close()
		c.endDrain()
		time.Sleep(time.Hour) // what begins with the loss of the channel is over
	})
}

// TestUnfitChild: a program that cannot be the child that its master wants says why: of another
// protocol, of a role that it does not know, with another tree.
func TestUnfitChild(t *testing.T) {
	for want, w := range map[string]childproto.Hello{
		"the master speaks protocol 9, this program 1": {Protocol: 9},
		`role "cook" is not known to this release`:     {Protocol: childproto.Version, Role: "cook"},
		"this program's tree is not its master's: the master has {web: Pool Size=9}, this process {nothing}": {
			Protocol: childproto.Version, Role: childproto.RoleWorker, Tree: []string{"web: Pool Size=9"},
		},
	} {
		c := newChild(Config{}.defaults(), &node{})
		mine, its := fdipc.Pipe(fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) {}}, c.transport())
		c.hello <- receivedHello{hello: w}
		if bye := c.run(its, nil); bye.Kind != childproto.NoticeUnfit || bye.Text != "coppice: "+want {
			t.Errorf("%+v, want %q", bye, want)
		}
		_, _ = its.Close(), mine.Close()
		c.endDrain()
	}
}

// TestUnknownMaster: a worker whose channel cannot be understood says what is wrong with it, and
// not only that the master is gone.
func TestUnknownMaster(t *testing.T) {
	var b bytes.Buffer
	c := newChild(Config{OrphanDrain: time.Hour, Logger: slog.New(slog.NewTextHandler(&b, nil))}, &node{})
	c.channelLost(nil, fdipc.ErrVersion)
	defer c.endDrain()
	if err := context.Cause(c.ctx); !errors.Is(err, ErrMasterGone) || !errors.Is(err, fdipc.ErrVersion) {
		t.Errorf("the worker's context ends with %v", err)
	}
	if !strings.Contains(b.String(), fdipc.ErrVersion.Error()) {
		t.Errorf("the log has %s", b.String())
	}
}
