package child

import (
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// TestNoConfiguration: a child that has no room for the configuration that its master sends
// ends at once, and says why.
func TestNoConfiguration(t *testing.T) {
	w := childproto.Hello{Protocol: childproto.Version, Role: childproto.RoleWorker, ConfigSize: 1 << 20}
	for name, tt := range map[string]struct {
		hello func(c *Session)
		errno error
	}{
		"out of descriptors": {func(c *Session) { c.handlesLost(nil, childproto.NewFrame(childproto.FrameHello, w)) }, syscall.EMFILE},
		"refused by mmap": {func(c *Session) {
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
			c := newTest(slog.New(slog.DiscardHandler))
			c.process = true
			mine, its := fdipc.Pipe(fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) {}}, c.ConnConfig())
			tt.hello(c)
			notice := c.Run(its, nil)
			if notice.Kind != childproto.NoticeError || !strings.Contains(notice.Text, "configuration") || !strings.Contains(notice.Text, tt.errno.Error()) {
				t.Errorf("%+v", notice)
			}
			_, _ = its.Close(), mine.Close()
			c.endDrain()
		})
	}
}
