package fdipc_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

// resetConn returns a connection that its client has reset, as package net accepted it.
func resetConn(t *testing.T) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	_ = client.(*net.TCPConn).SetLinger(0)
	client.Close()
	rc, err := server.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	gone := false
	for !gone { // loopback: at once
		_ = rc.Control(func(fd uintptr) {
			_, err := unix.Getpeername(int(fd))
			gone = err != nil
		})
	}
	return server
}

// A connection keeps its addresses when its client resets it: with the handle, when it is sent on,
// after Close.
func TestAddressesOfReset(t *testing.T) {
	passOver := func(t *testing.T, a, b fdipc.Config, h *fdipc.Handle) net.Conn {
		out := make(chan net.Conn, 1)
		a.Handler, b.Handler = ignore, func(_ *fdipc.Conn, f *fdipc.Frame) {
			c, err := f.Handles[0].Known(fdipc.HandleTCP).Conn()
			if err != nil {
				t.Error(err)
			}
			out <- c
		}
		from, _ := pair(t, a, b)
		if err := from.Send(context.Background(), &fdipc.Frame{Kind: 0x40, Handles: []*fdipc.Handle{h}}); err != nil {
			t.Fatal(err)
		}
		c := <-out
		t.Cleanup(func() { c.Close() })
		return c
	}
	handle := func(t *testing.T, c net.Conn) *fdipc.Handle {
		h, err := fdipc.HandleOf(c)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	t.Run("once and again", func(t *testing.T) {
		server := resetConn(t)
		remote, local := server.RemoteAddr().String(), server.LocalAddr().String()
		c := passOver(t, fdipc.Config{}, fdipc.Config{}, handle(t, server))
		c = passOver(t, fdipc.Config{}, fdipc.Config{}, handle(t, c))
		c.Close()
		if c.RemoteAddr().String() != remote || c.LocalAddr().String() != local {
			t.Errorf("%v to %v, want %s to %s", c.RemoteAddr(), c.LocalAddr(), remote, local)
		}
	})
	t.Run("as package net's", func(t *testing.T) {
		server := resetConn(t)
		remote := server.RemoteAddr().String()
		c := passOver(t, fdipc.Config{}, fdipc.Config{}, handle(t, server))
		if n, err := c.(*fdipc.Socket).TCPConn(); !errors.Is(err, syscall.ENOTCONN) {
			t.Errorf("%v, %v: a connection whose RemoteAddr is nil makes its users panic", n, err)
		}
		if c.RemoteAddr().String() != remote {
			t.Errorf("its own address is %v, was %s", c.RemoteAddr(), remote)
		}
	})
}

// What was not said is asked for when the connection is made, and not later.
func TestAddressesAskedAtOnce(t *testing.T) {
	dir := t.TempDir()
	ln, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	d := net.Dialer{LocalAddr: &net.UnixAddr{Net: "unix", Name: filepath.Join(dir, "c")}}
	client, err := d.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c, err := dupHandle(t, server).Conn() // a descriptor alone: nothing is known of it
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if c.RemoteAddr().String() != filepath.Join(dir, "c") || c.LocalAddr().String() != filepath.Join(dir, "s") {
		t.Errorf("%v to %v", c.RemoteAddr(), c.LocalAddr())
	}
}
