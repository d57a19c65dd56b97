package main

import (
	"context"
	"log"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/coppice-go/coppice/examples/internal/chaos"
	coppice "github.com/coppice-go/coppice/runtime"
)

const clients = 4 // of each kind

// harm has clients call, and others that have one stream without an end after another, kills each
// worker, and reloads the tree. It ends the program with an error if a call fails, a kill
// cuts more streams than there are, or a reload any.
func harm(rt *coppice.Runtime, addr string) {
	crowd := chaos.NewCrowd("calls answered", "failed", "ticks heard", "streams told to ask again", "cut")
	for i := range 2 * clients {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(retries))
		if err != nil {
			log.Fatal(err)
		}
		defer conn.Close()
		if i < clients {
			crowd.Add(func(ctx context.Context) (string, error) {
				return "calls answered", conn.Invoke(ctx, methodNow, new(emptypb.Empty), new(wrapperspb.StringValue))
			})
			continue
		}
		var ticks grpc.ClientStream // nil = none now
		crowd.Add(func(ctx context.Context) (string, error) {
			if ticks == nil {
				if ticks, err = open(ctx, conn, methodTick, new(emptypb.Empty)); err != nil {
					return "", err
				}
			}
			err := ticks.RecvMsg(new(wrapperspb.StringValue))
			if err == nil {
				return "ticks heard", nil
			}
			ticks = nil
			if status.Convert(err).Message() == toldToAsk {
				return "streams told to ask again", nil
			}
			log.Print(err)
			return "cut", nil
		})
	}
	crowd.After("the start", map[string]int{"failed": 0, "streams told to ask again": 0, "cut": 0})
	for _, name := range chaos.Workers(rt, "rpc") {
		chaos.Kill(rt, name)
		crowd.After("kill -9 of "+name, map[string]int{"failed": 0, "cut": clients})
	}
	chaos.Reload(rt)
	if n := crowd.After("a reload", map[string]int{"failed": 0, "cut": 0}); n["streams told to ask again"] < clients {
		log.Fatal("not all streams are told")
	}
	crowd.Stop()
}
