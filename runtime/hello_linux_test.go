package coppice

import (
	"errors"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/pool"
)

// TestNoConfiguration: a child that has no room for the configuration that its master sends
// ends at once, and says why.
func TestNoConfiguration(t *testing.T) {
	w := childproto.Hello{Protocol: childproto.Version, Role: childproto.RoleWorker, ConfigSize: inlineConfig + 1}
	for name, tt := range map[string]struct {
		welcome func(c *child)
		errno   error
	}{
		"out of descriptors": {func(c *child) { c.handlesLost(nil, childproto.NewFrame(childproto.FrameHello, w)) }, syscall.EMFILE},
		"refused by mmap": {func(c *child) {
			r, _, err := os.Pipe() // no memory to map
			if err != nil {
				t.Fatal(err)
			}
			h, err := fdipc.HandleOf(r)
			if err != nil {
				t.Fatal(err)
			}
			c.handle(nil, childproto.NewFrame(childproto.FrameHello, w, h))
		}, syscall.ENODEV},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChild(Config{Logger: slog.New(slog.DiscardHandler)}, &node{})
			c.process = true
			mine, its := fdipc.Pipe(fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) {}}, c.transport())
			tt.welcome(c)
			bye := c.run(its, nil)
			if bye.Kind != childproto.NoticeError || !strings.Contains(bye.Text, "configuration") || !strings.Contains(bye.Text, tt.errno.Error()) {
				t.Errorf("%+v", bye)
			}
			_, _ = its.Close(), mine.Close()
			c.endDrain()
		})
	}
}

// TestShortOfConfiguration: a master that has no room for what carries a long configuration finds
// so before it forks, where the start is tried again.
func TestShortOfConfiguration(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	gen := newGeneration(1, nil, make([]byte, inlineConfig+1))
	c := newPoolDriver(poolParts{generations: &generations{current: gen}}, workerPool, "web", Pool{Size: 1})
	w := newPoolWorker(c, pool.Effect{})
	w.hello = childproto.Hello{Name: "web/0", Config: gen.config}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	err := w.tryLaunch(t.Context())
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if !isShort(err) || !errors.Is(err, syscall.EMFILE) || !strings.Contains(err.Error(), "configuration of ") {
		t.Errorf("error %v", err)
	}
}
