package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	coppice "github.com/coppice-go/coppice/runtime"
)

// clock is the service. Its description is written by hand, so that the example
// needs no generated code; yours comes from protoc.
type clock struct {
	w    *coppice.Worker
	stop context.Context // ends when the worker is asked to stop
}

const (
	toldToAsk = "draining: ask again"

	clockName = "coppice.examples.Clock"

	methodNow   = "/" + clockName + "/Now"
	methodTick  = "/" + clockName + "/Tick"
	methodCount = "/" + clockName + "/Count"
)

// Now answers with the worker's name and the time.
func (c clock) Now(context.Context, *emptypb.Empty) (*wrapperspb.StringValue, error) {
	return wrapperspb.String(fmt.Sprintf("%s (pid %d) %s", c.w.Name(), os.Getpid(), time.Now().Format(time.TimeOnly))), nil
}

// Tick sends the worker's name and generation at each interval. A stream without an
// end would hold up the drain until its deadline: this one ends by a status that
// tells the client to ask again, which reaches another worker.
func (c clock) Tick(s grpc.ServerStream) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if err := s.SendMsg(c.who()); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-s.Context().Done():
			return s.Context().Err()
		case <-c.stop.Done():
			return status.Error(codes.Unavailable, toldToAsk)
		}
	}
}

// Count sends n ticks. A stream that has an end needs no word on the drain: GOAWAY
// lets it finish.
func (c clock) Count(n int, s grpc.ServerStream) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for range n {
		if err := s.SendMsg(c.who()); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
	return nil
}

func (c clock) who() *wrapperspb.StringValue {
	return wrapperspb.String(fmt.Sprintf("%s of generation %d", c.w.Name(), c.w.Generation()))
}

func registerClock(s grpc.ServiceRegistrar, c clock) {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: clockName,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Now",
			Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				in := new(emptypb.Empty)
				if err := decode(in); err != nil {
					return nil, err
				}
				return srv.(clock).Now(ctx, in)
			},
		}},
		Streams: []grpc.StreamDesc{{
			StreamName: "Tick", ServerStreams: true,
			Handler: func(srv any, s grpc.ServerStream) error {
				if err := s.RecvMsg(new(emptypb.Empty)); err != nil {
					return err
				}
				return srv.(clock).Tick(s)
			},
		}, {
			StreamName: "Count", ServerStreams: true,
			Handler: func(srv any, s grpc.ServerStream) error {
				n := new(wrapperspb.UInt32Value)
				if err := s.RecvMsg(n); err != nil {
					return err
				}
				return srv.(clock).Count(int(n.Value), s)
			},
		}},
	}, c)
}
