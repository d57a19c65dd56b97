package hosts

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/coppice-go/coppice/actors/hosts/internal/trunk"
)

// A Tunnel is a Unix socket of this host whose connections lead to a service of another one. The
// gateway listens there.
type Tunnel struct {
	Socket  string   // an absolute path, whose directory is made with mode 0700 if it is not there
	Hosts   []string // to the first of them to which there is a trunk; to none: the connection ends
	Service string
}

// A TunnelService is what the tunnels of other hosts lead to.
type TunnelService struct {
	Name   string
	Socket string   // where a process of this host listens
	Hosts  []string // that may connect; nil: each that has a trunk
}

// socketPause is between two tries to listen at the socket of a tunnel.
const socketPause = time.Second

// tunnels are those of a gateway.
type tunnels struct {
	log      *slog.Logger
	services []TunnelService
}

// serve takes the connections of ts until ctx ends, and waits for what it has begun.
func (x *tunnels) serve(ctx context.Context, mesh *trunk.Mesh, ts []Tunnel) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, t := range ts {
		wg.Go(func() { // until ctx ends
			for ctx.Err() == nil {
				if err := x.listen(ctx, &wg, mesh, t); err != nil {
					x.log.Error("hosts: no tunnel to the engine of other hosts", "socket", t.Socket, "err", err)
				}
				select {
				case <-time.After(socketPause):
				case <-ctx.Done():
				}
			}
		})
	}
}

// listen takes the connections of a tunnel until ctx ends; then it returns nil.
func (x *tunnels) listen(ctx context.Context, wg *sync.WaitGroup, mesh *trunk.Mesh, t Tunnel) error {
	if err := os.MkdirAll(filepath.Dir(t.Socket), 0o700); err != nil {
		return err
	}
	if err := os.Remove(t.Socket); err != nil && !os.IsNotExist(err) { // of a former gateway
		return err
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: t.Socket, Net: "unix"})
	if err != nil {
		return err
	}
	ln.SetUnlinkOnClose(false) // by then it may be a later gateway's
	defer ln.Close()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		c, err := ln.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		wg.Go(func() { // until either side ends
			defer c.Close()
			for _, host := range t.Hosts {
				if to := mesh.Trunk(host); to != nil {
					if far, err := to.OpenStream(ctx, t.Service); err == nil {
						splice2(ctx, c, far)
						return
					}
				}
			}
		})
	}
}

// take takes a stream that another host has opened. It owns c.
func (x *tunnels) take(ctx context.Context, t *trunk.Trunk, service string, c net.Conn) {
	defer c.Close()
	host := t.Peer().Name
	i := slices.IndexFunc(x.services, func(s TunnelService) bool { return s.Name == service })
	if i < 0 || x.services[i].Hosts != nil && !slices.Contains(x.services[i].Hosts, host) {
		x.log.Warn("hosts: a host asks for what is not there for it", "host", host, "service", service)
		return
	}
	if near, err := new(net.Dialer).DialContext(ctx, "unix", x.services[i].Socket); err == nil {
		splice2(ctx, near, c)
	}
}

// splice2 carries bytes both ways until either end, or ctx, ends; then both are closed.
func splice2(ctx context.Context, a, b net.Conn) {
	end := func() { a.Close(); b.Close() }
	defer context.AfterFunc(ctx, end)()
	var back sync.WaitGroup
	back.Go(func() { defer end(); _, _ = io.Copy(a, b) })
	_, _ = io.Copy(b, a)
	end()
	back.Wait()
}
