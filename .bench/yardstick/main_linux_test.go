package main

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

func TestMain(m *testing.M) {
	if child() {
		return
	}
	if len(os.Args) > 1 && commands()[os.Args[1]].rows != nil {
		main() // the tree of a row
		return
	}
	code := m.Run()
	removeBuilt()
	os.Exit(code)
}

// What a starved child lets lie comes back, is offered again, and counts; the row holds.
func TestComesBack(t *testing.T) {
	src, err := dupTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(src)
	var back returns
	var child *os.Process
	w := flow{
		role: "handles", unit: "handles/s", claimTimeout: 20 * time.Millisecond, resend: back.resend,
		started: func(p *process) {
			child = p.cmd.Process
			_ = child.Signal(unix.SIGSTOP)
		},
		resolved: func(c *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
			if o == fdipc.Returned {
				_ = child.Signal(unix.SIGCONT)
			}
			back.resolved(c, h, o)
		},
		send: func(c *fdipc.Conn) (int, error) {
			return 1, c.Send(context.Background(), &fdipc.Frame{Kind: kindWork, Lane: fdipc.Data, Handles: []*fdipc.Handle{fdipc.HandleFD(dup(src))}})
		},
	}
	res, err := drive(20*time.Millisecond, w)
	if err != nil || res.Back == 0 {
		t.Errorf("%+v, %v", res, err)
	}
}

// Every row runs, and counts on both sides what it sent.
func TestRows(t *testing.T) {
	tree.workers, tree.inFlight, respawnWorkers, calls.workers = 2, 16, 2, 2
	callSizes = callSizes[:1]
	for i := range growths {
		growths[i].sizes = growths[i].sizes[:1]
	}
	for _, c := range commands() {
		if c.page {
			continue
		}
		for _, r := range c.rows() {
			t.Run(r.name, func(t *testing.T) {
				res, err := r.run(20 * time.Millisecond)
				if err == nil && res.CPU == 0 { // the kernel may count in hundredths of a second
					res, err = r.run(time.Second)
				}
				if errors.Is(err, errSkip) {
					t.Skip(err)
				}
				if err != nil || res.Value <= 0 || res.CPU <= 0 || res.Unit == "" {
					t.Errorf("%+v, %v", res, err)
				}
			})
		}
	}
}
