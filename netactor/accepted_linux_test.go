package netactor_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
)

// A client that resets at once has its true address in the worker, and the address that it
// connected to is true too: under each policy, also with a wildcard listener, and with a header
// that names other addresses.
func TestAddressesOfAccept(t *testing.T) {
	rows := []struct {
		name string
		req  netactor.Request
		f    netactor.Functions
	}{
		{name: "round-robin"},
		{name: "least-loaded", req: netactor.Request{Policy: netactor.LeastLoaded}},
		{name: "hash", req: netactor.Request{Policy: netactor.Hash}},
		{name: "peek", req: netactor.Request{Policy: netactor.Hash, Peek: netactor.Peek{By: netactor.PeekBytes, Bytes: 1}}},
		{name: "proxy", req: netactor.Request{Policy: netactor.Hash, Peek: netactor.Peek{Proxy: true}}},
		{name: "custom", req: netactor.Request{Policy: netactor.Custom, Functions: "f"}, f: netactor.Functions{
			Picker: pickerFunc(func(netip.AddrPort, []netactor.Load) int { return 0 }),
		}},
		{name: "shared", req: netactor.Request{Policy: netactor.Shared}},
		{name: "reuseport", req: netactor.Request{Policy: netactor.ReusePort}},
		{name: "wildcard", req: netactor.Request{Address: ":0"}},
		{name: "wildcard, shared", req: netactor.Request{Address: ":0", Policy: netactor.Shared}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			tr := newTree(t, false, func(tr *tree) {
				tr.cfg.Functions = func(string) netactor.Functions { return row.f }
			})
			row.req.Network = "tcp"
			if row.req.Address == "" {
				row.req.Address = "127.0.0.1:0"
			}
			ln, err := tr.worker(0).ls.Listen(testContext(t), row.req)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			port := ln.Addr().(*net.TCPAddr).Port
			for range 20 {
				client, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
				if err != nil {
					t.Fatal(err)
				}
				if row.req.Peek.Proxy {
					fmt.Fprintf(client, "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
				}
				fmt.Fprintf(client, "GET / HTTP/1.1\r\n\r\n")
				remote, local := client.LocalAddr().String(), client.RemoteAddr().String()
				_ = client.(*net.TCPConn).SetLinger(0)
				if row.req.Peek == (netactor.Peek{}) { // a listener that peeks sees the reset, and drops the connection
					client.Close()
				}
				c, err := ln.Accept()
				if err != nil {
					t.Fatal(err)
				}
				client.Close()
				waitReset(t, c)
				if c.RemoteAddr().String() != remote || c.LocalAddr().String() != local {
					t.Errorf("%v to %v, want %s to %s", c.RemoteAddr(), c.LocalAddr(), remote, local)
				}
				c.Close()
			}
		})
	}
}

// waitReset waits until the kernel has forgotten the client of c.
func waitReset(t *testing.T, c net.Conn) {
	t.Helper()
	_, err := c.Read(make([]byte, 1024))
	for err == nil {
		_, err = c.Read(make([]byte, 1024))
	}
}

// The client of a Unix socket has its name and its credentials as of the accept, if the listener
// asks for them, whichever process accepts.
func TestUnixClients(t *testing.T) {
	who := fdipc.Credentials{PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid()}
	for _, policy := range []netactor.Policy{netactor.RoundRobin, netactor.Shared} {
		for _, network := range []string{"unix", "unixpacket"} {
			for _, asked := range []bool{true, false} {
				t.Run(fmt.Sprint(policy, " ", network, " asked ", asked), func(t *testing.T) {
					dir := t.TempDir()
					path := filepath.Join(dir, "s")
					ln, err := newTree(t, false).worker(0).ls.Listen(testContext(t), netactor.Request{Network: network, Address: path, Policy: policy, Credentials: asked})
					if err != nil {
						t.Fatal(err)
					}
					defer ln.Close()
					for _, name := range []string{"", filepath.Join(dir, "c"), "@coppice"} {
						d := net.Dialer{}
						if name != "" {
							d.LocalAddr = &net.UnixAddr{Net: network, Name: name}
						}
						client, err := d.Dial(network, path)
						if err != nil {
							t.Fatal(err)
						}
						client.Close()
						c, err := ln.Accept()
						if err != nil {
							t.Fatal(err)
						}
						if _, ok := netactor.PeerCredentials(struct{ net.Conn }{c}); ok {
							t.Error("found through a wrapper without NetConn")
						}
						if got, ok := netactor.PeerCredentials(netConner{inner: c}); ok != asked || asked && got != who {
							t.Errorf("credentials %+v, %v", got, ok)
						}
						c.Close()
						if addr := c.RemoteAddr().(*net.UnixAddr); addr.Name != name && (addr.Name != "@" || policy != netactor.Shared) {
							t.Errorf("client %q, want %q", addr.Name, name)
						}
						if c.LocalAddr().String() != path {
							t.Errorf("local %q, want %q", c.LocalAddr(), path)
						}
					}
				})
			}
		}
	}
}

// netConner is a wrapper with NetConn, like *tls.Conn.
type netConner struct {
	net.Conn
	inner net.Conn
}

func (n netConner) NetConn() net.Conn { return n.inner }
