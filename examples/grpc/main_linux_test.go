package main

import (
	"context"
	"strings"
	"sync"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

// now returns which worker answers on that connection.
func now(ctx context.Context, conn *grpc.ClientConn) (worker string, err error) {
	answer := new(wrapperspb.StringValue)
	err = conn.Invoke(ctx, methodNow, new(emptypb.Empty), answer)
	worker, _, _ = strings.Cut(answer.Value, " ")
	return worker, err
}

// TestKill: workers are killed with −9 while clients call. A call that a killed
// worker was answering is made again by the client's own retry; none fails.
func TestKill(t *testing.T) {
	p := runtimetest.Start(t, nil, "-addr", "127.0.0.1:0", "-workers", "3")
	addr := p.Await(`^grpc://([^/]+)/`)[1]
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
	defer cancel()

	kids := runtimetest.Children(t, p.PID())
	done := make(chan struct{})
	var callers sync.WaitGroup
	for range 4 {
		conn := dial(t, addr)
		callers.Go(func() {
			for calls := 0; ; calls++ {
				select {
				case <-done:
					return
				default:
				}
				if _, err := now(ctx, conn); err != nil {
					t.Errorf("call %d: %v", calls, err)
					return
				}
			}
		})
	}
	for _, pid := range kids[1:] { // the first is the listener process
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		runtimetest.Eventually(t, "a replacement", func() bool {
			return !runtimetest.Alive(pid) && len(runtimetest.Children(t, p.PID())) == len(kids)
		})
	}
	close(done)
	callers.Wait()
	end(t, p)
}

// TestDrain: streams without an end are told to ask again when the program is
// asked to stop: a status, not a reset.
func TestDrain(t *testing.T) {
	p := runtimetest.Start(t, nil, "-addr", "127.0.0.1:0")
	addr := p.Await(`^grpc://([^/]+)/`)[1]
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
	defer cancel()
	var streams []grpc.ClientStream
	for range 8 {
		s, err := open(ctx, dial(t, addr), methodTick, new(emptypb.Empty))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.RecvMsg(new(wrapperspb.StringValue)); err != nil {
			t.Fatal(err)
		}
		streams = append(streams, s)
	}
	end(t, p)
	for _, s := range streams {
		var err error
		for err == nil {
			err = s.RecvMsg(new(wrapperspb.StringValue))
		}
		if st := status.Convert(err); st.Code() != codes.Unavailable || st.Message() != "draining: ask again" {
			t.Errorf("the stream ended with %v", err)
		}
	}
}

// end asks the program to end, which it must do in order.
func end(t *testing.T, p *runtimetest.Program) {
	t.Helper()
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, line := range p.Lines() {
		if strings.Contains(line, " ERROR ") && !strings.Contains(line, "(killed)") { // by the test
			t.Error(line)
		}
	}
}
