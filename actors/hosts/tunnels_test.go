package hosts_test

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/hoststest"
)

// jointed is an engine with sockets for the gateways.
type jointed struct {
	*hoststest.Memory
	tunnels  []hosts.Tunnel
	services []hosts.TunnelService
}

func (*jointed) Member(string) func(ctx context.Context) error { return nil }
func (j *jointed) Joints(string) ([]hosts.Tunnel, []hosts.TunnelService) {
	return j.tunnels, j.services
}

// TestTunnel: a connection to a tunnel's socket reaches the service of the first host to which
// there is a trunk, ends when the trunk is lost or either end closes, and works again after it. A
// host that is none of the service's does not get through.
func TestTunnel(t *testing.T) {
	dir, err := os.MkdirTemp("", "tunnel") //nolint:usetesting // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	at := func(name string) string { return filepath.Join(dir, name) }
	listen := func(name string) {
		ln, err := net.Listen("unix", at(name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		go func() { // an echo that says its name first
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					if _, err := io.WriteString(c, name); err == nil {
						_, _ = io.Copy(c, c)
					}
				}()
			}
		}()
	}
	listen("b")
	listen("c")
	to := func(service, socket string, order ...string) hosts.Tunnel {
		return hosts.Tunnel{Socket: at(socket), Hosts: order, Service: service}
	}
	c := newCluster(t, 300*time.Millisecond)
	m := hoststest.NewMemory()
	c.engines = map[string]hosts.EngineSpec{
		"a": &jointed{Memory: m, tunnels: []hosts.Tunnel{to("x", "sub/bc", "b", "c"), to("closed", "sub/closed", "b"), to("none", "sub/none", "b")}},
		"b": &jointed{Memory: m, services: []hosts.TunnelService{{Name: "x", Socket: at("b"), Hosts: []string{"a"}}, {Name: "closed", Socket: at("b"), Hosts: []string{"c"}}}},
		"c": &jointed{Memory: m, services: []hosts.TunnelService{{Name: "x", Socket: at("c")}}},
	}
	for _, name := range []string{"a", "b", "c"} {
		c.start(name, "boot"+name)
	}
	// dial returns a connection to a tunnel of a, and who answers; nil if no host does.
	dial := func(name string) (net.Conn, string) {
		conn, err := net.Dial("unix", at(name))
		if err != nil {
			return nil, ""
		}
		t.Cleanup(func() { conn.Close() })
		who := make([]byte, 1)
		if _, err := io.ReadFull(conn, who); err != nil {
			return nil, ""
		}
		return conn, string(who)
	}
	reach := func(want string) (conn net.Conn) {
		t.Helper()
		until(t, "the tunnel leads to "+want, func() bool {
			var who string
			if conn, who = dial("sub/bc"); who != want && conn != nil {
				conn.Close()
			}
			return who == want
		})
		return conn
	}
	for range 2 {
		conn := reach("b")
		b := make([]byte, 200<<10)
		go func() { _, _ = conn.Write(make([]byte, len(b))) }()
		if _, err := io.ReadFull(conn, b); err != nil {
			t.Fatal(err)
		}
		if conn, who := dial("sub/closed"); conn != nil {
			t.Errorf("a host that may not connect has reached %q", who)
		}
		if conn, who := dial("sub/none"); conn != nil {
			t.Errorf("a service that is not there is %q", who)
		}
		c.net.Isolate("b")
		if n, err := conn.Read(b); err == nil {
			t.Errorf("%d bytes after the trunk was lost", n)
		}
		reach("c").Close()
		c.net.Heal()
	}
	conn := reach("b")
	c.hosts["a"].gateway.kill(killed)
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes after the gateway has ended", n)
	}
	c.hosts["a"].startGateway()
	reach("b").Close()
}
