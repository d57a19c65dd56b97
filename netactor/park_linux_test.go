package netactor_test

import (
	"errors"
	"net"
	"testing"

	"github.com/coppice-go/coppice/netactor"
)

// TestParkBetweenListenerProcesses: a listener process ends, and a worker that drains has no link to
// the next one yet. Its connections still move, so no client is told to open a new one: they go when
// the link is there.
func TestParkBetweenListenerProcesses(t *testing.T) {
	tr := newTree(t, true)
	w := tr.worker(0)
	ln := w.mustListen(loopback)
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	conn := accepted.(netactor.ParkableConn)
	next := tr.worker(1).mustListen(loopback)

	tr.killListener()
	<-w.link[1].Done()
	w.ls.Park()
	ln.Close()
	if !conn.Parks() {
		t.Error("its client is told to open another connection")
	}
	conn.Idle()
	read := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 16))
		read <- err
	}()
	tr.startListener()
	if err := <-read; !errors.Is(err, netactor.ErrParked) {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	moved, err := next.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer moved.Close()
	if moved.RemoteAddr().String() != client.LocalAddr().String() {
		t.Errorf("a connection of %v came, not of %v", moved.RemoteAddr(), client.LocalAddr())
	}
}
