package coppice

import (
	"log/slog"
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/child"
	"github.com/coppice-go/coppice/tracing"
)

// A worker that is a goroutine may be killed before it has begun, for example when it is no longer
// wanted as it is started. That used to end the program.
func TestKilledAtOnce(t *testing.T) {
	for range 100 {
		c := child.New((&node{}).childConfig(slog.Default(), time.Second, nil))
		mine, its := fdipc.Pipe(fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) {}}, c.ConnConfig())
		b := startGoroutineChild(c, its, tracing.Pipeline(nil))
		b.kill()
		select {
		case <-b.returned:
		case <-time.After(time.Minute):
			t.Fatal("it lives on")
		}
		if err := mine.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
