package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// retries has a client wait for a connection, and ask again when it is lost: what
// every gRPC client of a service that is ever restarted should do.
const retries = `{"methodConfig": [{"name": [{}], "waitForReady": true, "retryPolicy": {
	"maxAttempts": 5, "initialBackoff": "0.01s", "maxBackoff": "0.1s", "backoffMultiplier": 2,
	"retryableStatusCodes": ["UNAVAILABLE"]}}]}`

// ask is a client: it keeps a connection, asks n times for the time, and prints what
// it hears.
func ask(addr string, n int, interval time.Duration) error {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(retries))
	if err != nil {
		return err
	}
	defer conn.Close()
	for range n {
		answer := new(wrapperspb.StringValue)
		if err := conn.Invoke(context.Background(), methodNow, new(emptypb.Empty), answer); err != nil {
			return err
		}
		fmt.Println(answer.Value)
		<-time.After(interval)
	}
	return nil
}

// open begins a stream.
func open(ctx context.Context, conn *grpc.ClientConn, method string, request proto.Message) (grpc.ClientStream, error) {
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		return nil, err
	}
	return s, errors.Join(s.SendMsg(request), s.CloseSend())
}
