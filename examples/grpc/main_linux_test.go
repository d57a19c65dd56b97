package main

import (
	"context"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/coppice-go/coppice/examples/examplestest"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

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
		if st := status.Convert(err); st.Code() != codes.Unavailable || st.Message() != toldToAsk {
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

// TestChaos: the program harms itself, and loses nothing that it should not.
func TestChaos(t *testing.T) { examplestest.Chaos(t, "-addr", "127.0.0.1:0") }
