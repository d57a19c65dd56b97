//go:build linux

package coppice_test

import (
	"context"
	"io"
	"net"
	"os"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// holderVar names the variable with the address that workers of "stops held" dial when they
// are asked to stop; they end when that connection does.
const holderVar = "COPPICE_TEST_HOLDER"

func init() {
	trees["stops held"] = func() coppice.Config {
		return coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{
			Name: "web", Size: 3, Shutdown: time.Hour, Worker: func(ctx context.Context, w *coppice.Worker) error {
				if err := w.Ready(); err != nil {
					return err
				}
				<-ctx.Done()
				conn, err := net.Dial("tcp", os.Getenv(holderVar))
				if err != nil {
					return err
				}
				defer conn.Close()
				_, err = io.Copy(io.Discard, conn)
				return err
			},
		}}}
	}
}

// TestPoolStopsTogether: the workers of a pool are asked together, while none of them has
// ended yet, and each has its drain; the tree's end takes as long as the slowest.
func TestPoolStopsTogether(t *testing.T) { inBoth(t, testPoolStopsTogether) }

func testPoolStopsTogether(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	t.Setenv(holderVar, ln.Addr().String())
	p := startTree(t, "stops held")
	stopped := make(chan error, 1)
	go func() { // ends with the tree
		ctx, cancel := context.WithTimeout(context.Background(), runtimetest.Patience)
		defer cancel()
		stopped <- p.Shutdown(ctx)
	}()
	_ = ln.(*net.TCPListener).SetDeadline(time.Now().Add(runtimetest.Patience / 2))
	var held []net.Conn
	for range 3 {
		conn, err := ln.Accept()
		if err != nil {
			t.Errorf("%d of 3 workers were asked to stop while none had ended: %v", len(held), err)
			break
		}
		held = append(held, conn)
	}
	for _, conn := range held {
		_ = conn.Close()
	}
	if err := <-stopped; err != nil {
		t.Errorf("shutdown: %v", err)
	}
}
