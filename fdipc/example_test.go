package fdipc_test

import (
	"context"
	"fmt"

	"github.com/coppice-go/coppice/fdipc"
)

const (
	kindAsk   fdipc.Kind = 0x40
	kindReply fdipc.Kind = 0x41
)

// A request goes out with the number of its call, and the reply brings it back.
func ExampleCalls() {
	var calls fdipc.Calls[string, string] // notes, and replies, are strings
	asker, server := fdipc.Pipe(
		fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) {
			if !calls.Finish(f.Target, string(f.Payload), nil) {
				fmt.Println("nothing waits for", f.Target)
			}
		}},
		fdipc.Config{Handler: func(c *fdipc.Conn, f *fdipc.Frame) {
			_ = c.TrySend(&fdipc.Frame{Kind: kindReply, Target: f.Target, Payload: append([]byte("re: "), f.Payload...)})
		}},
	)
	defer asker.Close()
	defer server.Close()
	ctx := context.Background()
	fmt.Println(calls.Do(ctx, asker, &fdipc.Frame{Kind: kindAsk, Payload: []byte("how are you")}, "a greeting"))
	// Output: re: how are you <nil>
}
