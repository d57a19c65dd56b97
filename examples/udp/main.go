// Udp is a UDP echo service in worker processes that share one socket.
//
//	go run ./examples/udp -addr 127.0.0.1:8040
//	go run ./examples/udp -chaos
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/coppice-go/coppice/examples/internal/chaos"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/supervisor"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8040", "listen `address`; port 0 picks one")
	workers := flag.Int("workers", 4, "worker processes")
	policy := coppice.Shared
	flag.TextVar(&policy, "policy", policy, "shared, or reuseport: a `socket` for each worker")
	broken := flag.Bool("chaos", false, "kill and reload it under clients, count at them what it cost, and end")
	flag.Parse()

	coppice.Main(coppice.Config{
		Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) {
			addr := rt.Listeners()[0].Addr.String()
			fmt.Printf("udp://%s  master pid %d\n", addr, os.Getpid())
			if *broken {
				chaos.Run(rt, func(rt *coppice.Runtime) { harm(rt, addr) })
			} else {
				fmt.Print(rt.Snapshot())
			}
		}},
		Children: []coppice.ChildSpec{coppice.Pool{
			Name: "echo", Size: *workers, Intensity: supervisor.Intensity{Max: 250, Period: 10 * time.Second},
			Worker: func(ctx context.Context, w *coppice.Worker) error {
				pc, err := w.ListenPacketSpec(ctx, coppice.ListenerSpec{Network: "udp", Address: *addr, Policy: policy})
				if err != nil {
					return err
				}
				defer pc.Close()
				if err := w.Ready(); err != nil {
					return err
				}
				return echo(ctx, tap(w, pc), w.Name())
			},
		}},
	})
}

// tap is for the test, which counts what a worker reads and writes.
var tap = func(_ *coppice.Worker, pc net.PacketConn) net.PacketConn { return pc }

// echo answers each datagram with itself and the worker's name, until ctx ends. What it has read by
// then it answers; what it has not is another's.
func echo(ctx context.Context, pc net.PacketConn, name string) error {
	defer context.AfterFunc(ctx, func() { _ = pc.SetReadDeadline(time.Unix(1, 0)) })()
	b := make([]byte, 64<<10) // the largest datagram
	for {
		n, from, err := pc.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		answer := fmt.Appendf(nil, "%s %s\n", bytes.TrimSpace(b[:n]), name)
		if _, err := pc.WriteTo(answer, from); err != nil {
			fmt.Println("answer to", from, "not sent:", err) // of no concern to the next
		}
	}
}
