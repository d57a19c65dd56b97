package child

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

// newTest returns a child that has no frame from its master yet, of a program without children.
func newTest(log *slog.Logger) *Session {
	return New(Config{
		Logger: log, OrphanDrain: time.Hour,
		Tree:    []string{"/ is Config", "api is Pool", "cron is Func"},
		Program: func(string, string, *Session) (Program, bool) { return Program{}, false },
	})
}

// A child that has just ended may be sent a link, which its master takes back as the
// channel ends. That is no bad frame: it stood among the last lines of the child, which say
// why a reload failed.
func TestLinkTakenBack(t *testing.T) {
	c := newTest(slog.New(slog.DiscardHandler))
	got := make(chan error, 1)
	here, back := make(chan struct{}), make(chan struct{}) // closed when the link is
	mine, its := fdipc.Pipe(fdipc.Config{
		ClaimTimeout: -1, Handler: func(*fdipc.Conn, *fdipc.Frame) {},
		Resolved: func(_ *fdipc.Conn, h *fdipc.Handle, _ fdipc.Outcome) {
			_ = h.Close()
			close(back)
		},
	}, fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) {
		close(here)
		<-back
		got <- c.link(f)
	}})
	defer its.Close()
	a, b, err := fdipc.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	h, err := fdipc.HandleOf(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := mine.Send(t.Context(), childproto.NewFrame(childproto.FrameLink, childproto.Sibling{}, h)); err != nil {
		t.Fatal(err)
	}
	<-here
	if err := mine.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-got:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("no frame")
	}
	if len(c.links) != 0 {
		t.Errorf("%d links", len(c.links))
	}
}

// TestSilentMaster: a child that gets no frame over its channel gives up, and says why.
func TestSilentMaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTest(slog.New(slog.DiscardHandler))
		mine, its := fdipc.Pipe(fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) {}}, c.ConnConfig())
		began := time.Now()
		notice := c.Run(its, nil)
		if notice.Kind != childproto.NoticeUnfit || !strings.Contains(notice.Text, "no hello") || time.Since(began) != helloTimeout {
			t.Errorf("after %v: %+v", time.Since(began), notice)
		}
		_, _ = its.Close(), mine.Close()
		c.endDrain()
		time.Sleep(time.Hour) // what begins with the loss of the channel is over
	})
}

// TestUnfitChild: a program that cannot be the child that its master wants says why: of another
// protocol, of a role that it does not know, of a pool that it does not have.
func TestUnfitChild(t *testing.T) {
	for want, w := range map[string]childproto.Hello{
		"the master speaks protocol 9, this program 1": {Protocol: 9},
		`role "cook" is not known to this release`:     {Protocol: childproto.Version, Role: "cook"},
		"this program has no pool web, which its master has: it has api (Pool), cron (Func). A worker finds its function by the path of its pool, " +
			"which must be the same in every process": {
			Protocol: childproto.Version, Role: childproto.RoleWorker, Path: "web",
		},
	} {
		c := newTest(slog.New(slog.DiscardHandler))
		mine, its := fdipc.Pipe(fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) {}}, c.ConnConfig())
		c.hello <- receivedHello{hello: w}
		if notice := c.Run(its, nil); notice.Kind != childproto.NoticeUnfit || notice.Text != "coppice: "+want {
			t.Errorf("%+v, want %q", notice, want)
		}
		_, _ = its.Close(), mine.Close()
		c.endDrain()
	}
}

// TestUnknownMaster: a worker whose channel cannot be understood says what is wrong with it, and
// not only that the master is gone.
func TestUnknownMaster(t *testing.T) {
	var b bytes.Buffer
	c := newTest(slog.New(slog.NewTextHandler(&b, nil)))
	c.channelLost(nil, fdipc.ErrVersion)
	defer c.endDrain()
	if err := context.Cause(c.ctx); !errors.Is(err, ErrMasterGone) || !errors.Is(err, fdipc.ErrVersion) {
		t.Errorf("the worker's context ends with %v", err)
	}
	if !strings.Contains(b.String(), fdipc.ErrVersion.Error()) {
		t.Errorf("the log has %s", b.String())
	}
}

func TestIdleTimes(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct{ drain, idle, keep, last time.Duration }{
		{8 * s, 8 * s, 4 * s, 6 * s},                            // another worker has taken the place
		{9 * s, 450 * s / 1000, 300 * s / 1000, 450 * s / 1000}, // none takes it
		{8 * s, 0, 0, 0},
		{0, 0, 0, 0},
	} {
		if keep, last := idleTimes(tt.drain, tt.idle); keep != tt.keep || last != tt.last {
			t.Errorf("drain %v, idle %v: %v, %v", tt.drain, tt.idle, keep, last)
		}
	}
}
