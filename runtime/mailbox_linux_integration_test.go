//go:build linux

package coppice_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// gated are actors of the master that take the first message once gate is closed.
var gated = map[string]coppice.Actor{
	"default": {Name: "sessions"},
	"own":     {Name: "sessions", Bound: 8},
}

func init() {
	for name, a := range gated {
		trees["gated-"+name] = func() coppice.Config {
			cfg := pool(2, flood)
			gate := gateOfTest
			a.New = func() actor.Actor {
				return actor.ReceiveFunc(func(ctx actor.Context) {
					if _, ok := ctx.Message().([]byte); ok {
						<-gate
					}
				})
			}
			cfg.Children = append([]coppice.ChildSpec{a}, cfg.Children...)
			return cfg
		}
	}
}

// gateOfTest is the gate of the tree that is started next, in the master.
var gateOfTest chan struct{}

// flood sends until a Send has to wait, or for much longer than it should have to.
func flood(ctx context.Context, w *coppice.Worker) error {
	if err := w.Ready(); err != nil {
		return err
	}
	msg, to := bytes.Repeat([]byte("m"), 4096), w.Lookup("sessions")
	for range 20_000 {
		sendCtx, cancel := context.WithTimeout(ctx, time.Second)
		err := w.System().Send(sendCtx, to, msg)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			fmt.Fprintln(os.Stdout, "a sender waits")
			break
		}
		if err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// An actor of the master that takes no message holds at most its bound of messages, and the workers
// that flood it wait: with its own Bound, and with the default.
func TestActorHoldsBackWorkers(t *testing.T) {
	for name, a := range gated {
		t.Run(name, func(t *testing.T) {
			gateOfTest = make(chan struct{})
			gate := gateOfTest
			p := startTree(t, "gated-"+name)
			defer close(gate)
			bound := a.Bound
			if bound == 0 {
				bound = actors.DefaultBound
			}
			runtimetest.Eventually(t, "both senders wait", func() bool {
				return strings.Count(p.output.String(), "a sender waits") == 2
			})
			queue := -1
			for _, info := range p.System().Actors() {
				if strings.HasSuffix(info.PID, "/sessions") {
					queue = info.Queue
				}
			}
			if queue != bound {
				t.Errorf("%d messages wait in a mailbox for %d", queue, bound)
			}
		})
	}
}
