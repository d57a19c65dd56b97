package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts"
	coppice "github.com/coppice-go/coppice/runtime"
)

// Messages between processes of all hosts.
type (
	take struct{ Order string }
	sold struct {
		Piece int
		Host  string
		Why   string // not
	}
	look  struct{}
	state struct {
		Host  string
		Fence uint64
		Sold  int
	}
	describe struct{ Item string }
)

func init() {
	actors.RegisterType[take]("shop.take")
	actors.RegisterType[sold]("shop.sold")
	actors.RegisterType[look]("shop.look")
	actors.RegisterType[state]("shop.state")
	actors.RegisterType[describe]("shop.describe")
}

// keepStock is called on the host that gets the name stock, and returns when the name is lost.
func keepStock(ctx context.Context, w *coppice.Worker) error {
	fence, _ := hosts.FenceOf(ctx)
	l, err := openLedger(filepath.Join(*dir, "ledger"), fence.Number)
	if err != nil {
		return err
	}
	defer l.close()
	_, err = w.System().Spawn(ctx, "stock", func() actor.Actor { return &stock{l} })
	if err != nil {
		return err
	}
	fmt.Printf("host %s: has the stock now, with fence %d: %d sold\n", *host, fence.Number, len(l.sold))
	<-ctx.Done()
	fmt.Printf("host %s: has the stock no more: %v\n", *host, context.Cause(ctx))
	return nil
}

// stock is the actor that sells, by what it knows from the ledger.
type stock struct{ *ledger }

func (s *stock) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case take:
		answer := sold{Host: *host}
		if _, known := s.sold[m.Order]; !known {
			if err := s.add(m.Order, len(s.sold)+1); err != nil {
				answer.Why = err.Error()
			}
		}
		answer.Piece = s.sold[m.Order]
		ctx.Respond(answer)
	case look:
		ctx.Respond(state{*host, s.fence, len(s.sold)})
	}
}

// ledger stands for the database of a real shop, which all hosts reach: a file of lines, each with
// the fence of who has written it. A line that stands after one of a higher fence is void. So who
// wrote last before another host had the stock has written in time, and who thaws later has not.
type ledger struct {
	file   *os.File
	in     *bufio.Reader
	part   string // of a line
	fence  uint64 // of this holder
	newest uint64
	sold   map[string]int // pieces, by order
	void   int            // lines
	double int            // orders and pieces that were sold before
	last   int            // piece
}

// opened is the order in the line by which a holder begins.
const opened = "-"

// openLedger reads what was sold. With a fence it begins to write, and voids what holders of lower
// ones write from then on.
func openLedger(path string, fence uint64) (*ledger, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	l := &ledger{file: f, in: bufio.NewReader(io.NewSectionReader(f, 0, math.MaxInt64)), fence: fence, sold: map[string]int{}}
	if fence == 0 {
		err = l.read()
	} else {
		err = l.add(opened, 0)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *ledger) close() { _ = l.file.Close() } // each write has been looked at

// add writes a line, and reads on: it counts if no other host has had the stock before.
func (l *ledger) add(order string, piece int) error {
	if _, err := fmt.Fprintf(l.file, "%d %s %d\n", l.fence, order, piece); err != nil {
		return err
	}
	if err := l.read(); err != nil {
		return err
	}
	if l.fence < l.newest {
		return fmt.Errorf("the ledger has fence %d, not %d: %w", l.newest, l.fence, hosts.ErrStale)
	}
	return nil
}

// read takes the lines that were not there before.
func (l *ledger) read() error {
	for {
		text, err := l.in.ReadString('\n')
		l.part += text
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var fence uint64
		var order string
		var piece int
		if _, err := fmt.Sscan(l.part, &fence, &order, &piece); err != nil {
			return fmt.Errorf("%s: %q: %w", l.file.Name(), l.part, err)
		}
		l.part = ""
		l.newest = max(l.newest, fence)
		switch _, before := l.sold[order]; {
		case fence < l.newest:
			l.void++
		case order == opened:
		case before || piece <= l.last:
			l.double++
		default:
			l.sold[order], l.last = piece, piece
		}
	}
}
