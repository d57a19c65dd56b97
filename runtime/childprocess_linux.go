package coppice

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/tracing"
)

// childBegun is set once this process has begun its life as a child.
var childBegun atomic.Bool

// runChild lives the life of a child process and exits. It returns only when
// this process cannot begin it.
func runChild(cfg Config, root *node, channel *os.File) error {
	if !childBegun.CompareAndSwap(false, true) {
		return ErrInChild
	}
	c := newChild(cfg, root)
	c.process = true
	conn, err := fdipc.New(channel, c.transport())
	if err != nil {
		return fmt.Errorf("coppice: the channel to the master: %w", err)
	}
	connectedChildren <- connectedChild{c, conn}
	go c.killOrphan(conn) // ends with the process
	bye := c.run(conn, c.ownPipeline)
	cut := errors.Is(context.Cause(c.ctx), ErrMasterGone) // part ends the channel too
	c.sendExitNotice(bye)
	flushLog(c.log)
	switch bye.Kind {
	case childproto.NoticeUnfit:
		printLine(os.Stderr, bye.Text)
		os.Exit(exitUsage)
	case childproto.NoticeError, childproto.NoticePanic:
		os.Exit(exitFailed)
	case childproto.NoticeNormal, childproto.NoticeShutdown:
		if cut {
			os.Exit(exitCut) // a master that lives all the same is to replace it, also one that is transient
		}
	}
	os.Exit(exitOK)
	return nil
}

// killOrphan makes sure that no child stays behind: one whose drain is over
// and whose master is gone is killed, whatever its worker function does. A worker
// that only a SIGTERM has told to go is left to its master, and one that has
// closed the channel itself exits by itself.
func (c *child) killOrphan(conn *fdipc.Conn) {
	<-conn.Done()
	if c.exiting.Load() {
		return
	}
	<-c.ctx.Done()
	<-time.After(max(c.cfg.OrphanDrain, 0))
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// ownPipeline starts the tracing of this process. Its spans leave by the master.
func (c *child) ownPipeline(w childproto.Hello) tracing.Pipeline {
	p, err := tracing.Start(context.Background(), w.Process(), &tracing.Uplink{
		Table: c.spanTable,
		Send: func(kind tracing.PayloadKind, b []byte) error {
			return c.conn.Send(context.Background(), &fdipc.Frame{Kind: childproto.PayloadFrame(kind), Lane: fdipc.Data, Payload: b})
		},
	})
	c.spanTable = nil
	if err != nil && !errors.Is(err, context.Canceled) {
		c.log.Warn("no tracing in this process", "name", w.Name, "err", err)
	}
	return p
}
