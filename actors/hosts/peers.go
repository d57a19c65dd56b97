package hosts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coppice-go/coppice/actors/hosts/internal/trunk"
)

// Peers says where the hosts of a cluster are. The gateway asks it every 5 s, so hosts come and go
// while the tree runs: a host that is no longer named is refused, and its trunk is closed.
type Peers interface {
	// Hosts returns the addresses and ports of the hosts, by their names. Its own is ignored. On an
	// error, and if there are none, those of before stay, and the log says why.
	Hosts(ctx context.Context) (map[string]string, error)
}

// Static are addresses that do not change, by the names of hosts.
type Static map[string]string

// Hosts returns the addresses.
func (s Static) Hosts(context.Context) (map[string]string, error) { return s, nil }

// PeersFile is a file of lines, each with the name of a host and its address with a port. Empty
// lines and those that begin with # count for nothing. It is to be replaced by a rename, as half of
// it would be taken for all.
type PeersFile string

// Hosts reads the file.
func (f PeersFile) Hosts(context.Context) (map[string]string, error) {
	b, err := os.ReadFile(string(f))
	if err != nil {
		return nil, err
	}
	found := make(map[string]string)
	for line := range strings.Lines(string(b)) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0][0] == '#' {
			continue
		}
		if len(words) != 2 || found[words[0]] != "" {
			return nil, fmt.Errorf("%s: %q is not the name of a host, once, and its address", string(f), strings.TrimSpace(line))
		}
		found[words[0]] = words[1]
	}
	return found, nil
}

// DNS is the name of SRV records, such as _coppice._tcp.shop.internal. The first label of a
// record's target is the name of the host.
type DNS string

var lookupSRV = net.DefaultResolver.LookupSRV // but in tests

// Hosts looks the records up. The addresses of the targets are looked up when they are dialled.
func (d DNS) Hosts(ctx context.Context) (map[string]string, error) {
	_, records, err := lookupSRV(ctx, "", "", string(d))
	found := make(map[string]string)
	for _, r := range records { // those that are sound, also with an error
		name, _, _ := strings.Cut(r.Target, ".")
		found[name] = net.JoinHostPort(strings.TrimSuffix(r.Target, "."), strconv.Itoa(int(r.Port)))
	}
	if err == nil && len(found) < len(records) {
		err = fmt.Errorf("the records of %s have a host twice", string(d))
	}
	return found, err
}

// peersPause is between two looks at Peers, and bounds each.
const peersPause = 5 * time.Second

// badPeer returns what is wrong with a host and its address; "": nothing.
func (c *Config) badPeer(name, address string) string {
	_, port, err := net.SplitHostPort(address)
	switch {
	case !trunk.ValidName(name) || err != nil || port == "" || port == "0":
		return "is no host with an address and a port"
	case c.TLS == TLS{} && !isLoopback(address):
		return "is not on loopback, and there are no certificates"
	}
	return ""
}

// followPeers has the trunks go to the hosts that there are, until ctx ends.
func (g *gateway) followPeers(ctx context.Context, c *Config, pause time.Duration) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	var last map[string]string
	for {
		lookup, cancel := context.WithTimeout(ctx, peersPause)
		found, err := c.Peers.Hosts(lookup)
		cancel()
		for name, address := range found {
			if why := c.badPeer(name, address); why != "" && err == nil {
				err = fmt.Errorf("%s at %q: %s", name, address, why)
			}
		}
		if err == nil && len(found) == 0 {
			err = errors.New("there are none")
		}
		switch {
		case err == nil && !maps.Equal(found, last):
			last = maps.Clone(found)
			g.states.peers(last)
			g.carrier.Peers(slices.Collect(maps.Keys(last)))
			g.mesh.SetPeers(last)
		case err != nil && ctx.Err() == nil && g.isNews("", err.Error()):
			g.log.Warn("hosts: peers that cannot be used; those of before stay", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
