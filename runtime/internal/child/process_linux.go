package child

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
	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/tracing"
)

// begun is set once this process runs as a child.
var begun atomic.Bool

// ErrBegun is the error of RunProcess in a process that has been a child already.
var ErrBegun = errors.New("coppice: this process is a child of a tree")

// RunProcess runs a child process on its channel to the master. It returns the code for the process
// to exit with, and a text for it to print before; or an error if the child cannot begin. It takes
// ownership of channel.
func RunProcess(cfg Config, channel *os.File) (code int, last string, err error) {
	if !begun.CompareAndSwap(false, true) {
		return 0, "", ErrBegun
	}
	s := New(cfg)
	s.process, s.setTitle = true, process.SetTitle
	conn, err := fdipc.New(channel, s.ConnConfig())
	if err != nil {
		return 0, "", fmt.Errorf("coppice: the channel to the master: %w", err)
	}
	connectedChildren <- connectedChild{s, conn}
	go s.killOrphan(conn) // ends with the process
	notice := s.Run(conn, s.ownPipeline)
	cut := errors.Is(context.Cause(s.ctx), ErrMasterGone) // End ends the channel too
	s.End(notice)
	switch notice.Kind {
	case childproto.NoticeUnfit:
		return childproto.ExitUsage, notice.Text, nil
	case childproto.NoticeError, childproto.NoticePanic:
		return childproto.ExitFailed, "", nil
	case childproto.NoticeNormal, childproto.NoticeShutdown:
		if cut {
			return childproto.ExitCut, "", nil // if the master still lives, it replaces the child, also a transient one
		}
	}
	return childproto.ExitOK, "", nil
}

// killOrphan makes sure that no child stays behind: it kills this process when its master is gone
// and its drain is over, whatever its worker function does. While the channel is open, the master
// decides when a child that drains is killed. A child that has closed the channel itself is about
// to exit.
func (s *Session) killOrphan(conn *fdipc.Conn) {
	<-conn.Done()
	if s.exiting.Load() {
		return
	}
	<-s.ctx.Done()
	<-time.After(time.Duration(max(s.orphanDrain.Load(), 0)))
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// ownPipeline starts the tracing of this process. Its spans go to the master.
func (s *Session) ownPipeline(w childproto.Hello) tracing.Pipeline {
	p, err := tracing.Start(context.Background(), w.Process(), &tracing.Uplink{
		Table: s.spanTable,
		Send: func(kind tracing.PayloadKind, b []byte) error {
			return s.conn.Send(context.Background(), &fdipc.Frame{Kind: childproto.PayloadFrame(kind), Lane: fdipc.Data, Payload: b})
		},
	})
	s.spanTable = nil
	if err != nil && !errors.Is(err, context.Canceled) {
		s.log.Warn("no tracing in this process", "name", w.Name, "err", err)
	}
	return p
}
