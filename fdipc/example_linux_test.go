package fdipc_test

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/coppice-go/coppice/fdipc"
)

// A connection goes from one process to another: its descriptor is offered, and claimed once.
func ExampleHandleOf() {
	local, remote, err := fdipc.Socketpair() // remote is inherited by the other process
	if err != nil {
		panic(err)
	}
	outcome := make(chan fdipc.Outcome, 1)
	sender, err := fdipc.New(local, fdipc.Config{
		Handler:  func(*fdipc.Conn, *fdipc.Frame) {},
		Resolved: func(_ *fdipc.Conn, _ *fdipc.Handle, o fdipc.Outcome) { outcome <- o },
	})
	if err != nil {
		panic(err)
	}
	defer sender.Close()
	receiver, err := fdipc.New(remote, fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) {
		c, err := f.Handles[0].Conn() // claims it
		if err != nil {
			return // it was taken back, or is no connection
		}
		fmt.Fprintf(c, "%s from the other process", f.Payload)
		c.Close()
	}})
	if err != nil {
		panic(err)
	}
	defer receiver.Close()
	client, served := connection()
	h, err := fdipc.HandleOf(served) // takes it over
	if err != nil {
		panic(err)
	}
	fmt.Println(sender.Send(context.Background(), &fdipc.Frame{Kind: kindAsk, Payload: []byte("hello"), Handles: []*fdipc.Handle{h}}))
	answer, err := io.ReadAll(client)
	fmt.Printf("%s %v\n", answer, err)
	fmt.Println(<-outcome)
	// Output:
	// <nil>
	// hello from the other process <nil>
	// claimed
}

// connection returns both ends of a TCP connection.
func connection() (client, served net.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer ln.Close()
	if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		panic(err)
	}
	if served, err = ln.Accept(); err != nil {
		panic(err)
	}
	return client, served
}
