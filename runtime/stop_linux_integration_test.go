//go:build linux

package coppice_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
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
	trees["starts held"] = func() coppice.Config {
		return coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{
			Name: "web", Size: 3, MaxParallelStarts: 3, Worker: func(ctx context.Context, w *coppice.Worker) error {
				conn, err := net.Dial("tcp", os.Getenv(holderVar))
				if err != nil {
					return err
				}
				if _, err = io.Copy(io.Discard, conn); err != nil {
					return err
				}
				return idle(ctx, w)
			},
		}}}
	}
	trees["stuck"] = func() coppice.Config {
		stuck := func(name string) coppice.Pool {
			return coppice.Pool{Name: name, Size: 1, Worker: func(ctx context.Context, w *coppice.Worker) error {
				if err := w.Ready(); err != nil {
					return err
				}
				<-ctx.Done()
				fmt.Println("told", name)
				select {}
			}}
		}
		return coppice.Config{
			Shutdown: 6 * time.Second,
			Hooks:    coppice.Hooks{Started: func(*coppice.Runtime) { fmt.Println("UP") }},
			Children: []coppice.ChildSpec{
				stuck("first"), stuck("middle"),
				coppice.Process{Name: "program", Shutdown: 10 * time.Second, Ready: coppice.Ready{Line: "up"}, Command: []string{
					"/bin/sh", "-c", "trap 'echo told program' TERM; echo up; while :; do sleep 0.1; done",
				}},
				stuck("last"),
			},
		}
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

// TestPoolStartsTogether: as many workers of a pool start at once as MaxParallelStarts says, so
// that a pool whose workers take long is up soon.
func TestPoolStartsTogether(t *testing.T) { inBoth(t, testPoolStartsTogether) }

func testPoolStartsTogether(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	t.Setenv(holderVar, ln.Addr().String())
	_ = ln.(*net.TCPListener).SetDeadline(time.Now().Add(runtimetest.Patience / 2))
	starting := make(chan int, 1)
	go func() { // ends with the deadline
		var held []net.Conn
		for range 3 {
			conn, err := ln.Accept()
			if err != nil {
				break
			}
			held = append(held, conn)
		}
		starting <- len(held)
		for _, conn := range held {
			_ = conn.Close()
		}
	}()
	startTree(t, "starts held")
	if n := <-starting; n != 3 {
		t.Errorf("%d of 3 workers were starting while none was ready", n)
	}
}

// TestStopInOneDeadline: what docker stop does to a tree whose pools and programs are all stuck.
// They stop one after the other, and each is asked before it is killed, although the first alone
// may take longer than all have.
func TestStopInOneDeadline(t *testing.T) {
	p := runtimetest.Start(t, []string{treeVar + "=stuck"})
	p.Await("^UP$")
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	told := regexp.MustCompile(`\| told (\w+)$`)
	var order []string
	for _, line := range p.Lines() {
		if m := told.FindStringSubmatch(line); m != nil {
			order = append(order, m[1])
		}
		if strings.Contains(line, "killed what was left") {
			t.Error(line)
		}
	}
	if !slices.Equal(order, []string{"last", "program", "middle", "first"}) {
		t.Errorf("%q were told to end", order)
	}
}
