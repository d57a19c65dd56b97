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

// Each package of a program has a range of kinds, and a frame goes to the one that has its kind.
func ExampleMux() {
	done := make(chan struct{})
	m, err := fdipc.NewMux(
		fdipc.Route{First: 0x40, Last: 0x4f, Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { fmt.Printf("listeners: %#x\n", f.Kind) }},
		fdipc.Route{First: 0x50, Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { fmt.Printf("spans: %#x\n", f.Kind); close(done) }},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	a, b := fdipc.Pipe(fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) {}}, fdipc.Config{Handler: m.Handle, NoFiles: m.NoFiles})
	defer b.Close()
	defer a.Close()
	for _, k := range []fdipc.Kind{0x42, 0x99, 0x50} { // 0x99 has no route: it is refused
		_ = a.TrySend(&fdipc.Frame{Kind: k})
	}
	<-done
	// Output:
	// listeners: 0x42
	// spans: 0x50
}
