package hosts_test

import (
	"context"
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts"
)

// changing are peers that a test changes.
type changing struct {
	mu    sync.Mutex
	hosts map[string]string
	err   error
	asked int
}

func (p *changing) Hosts(context.Context) (map[string]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	return maps.Clone(p.hosts), p.err
}

// set changes the peers, and waits until they were asked for twice since.
func (p *changing) set(t *testing.T, err error, names ...string) {
	p.mu.Lock()
	p.hosts, p.err = map[string]string{}, err
	for _, name := range names {
		p.hosts[name] = at(name)
	}
	from := p.asked
	p.mu.Unlock()
	until(t, "the gateway asks for its peers", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.asked >= from+2
	})
}

// TestPeersChange: hosts come and go while the gateway runs; what cannot be used changes nothing.
func TestPeersChange(t *testing.T) {
	c := newNetwork(t, time.Minute)
	peers := &changing{}
	c.edit = func(cfg *hosts.Config) {
		if cfg.Name == "a" {
			cfg.Peers = peers
			cfg.SetPause(time.Millisecond)
		}
	}
	from := c.start("a", "boota").child("a").System
	pid := spawn(t, c.start("b", "bootb").child("b").System, "echo", echo)
	_, err := from.Ask(t.Context(), pid, "x")
	if !errors.Is(err, actors.ErrUnreachable) {
		t.Errorf("without peers: %v", err)
	}
	for range 2 {
		peers.set(t, nil, "a", "b")
		answers(t, from, pid)
		m := from.Monitor(pid)
		for _, bad := range []error{errors.New("no answer"), nil} {
			peers.set(t, bad) // an error, and none
			answers(t, from, pid)
		}
		peers.set(t, nil, "a", "b", "no name")
		answers(t, from, pid)
		if len(m.C) > 0 {
			t.Errorf("Down: %v", (<-m.C).Reason)
		}
		peers.set(t, nil, "a")
		if d := next(t, "Down", m.C); !errors.Is(d.Reason.Err(), actors.ErrUnreachable) {
			t.Errorf("Down: %v", d.Reason)
		}
		until(t, "it is no peer", func() bool {
			_, err := from.Ask(t.Context(), from.LookupAt("b", "x"), "x")
			return errors.Is(err, actors.ErrNoHost)
		})
	}
}

// TestPeersFound: hosts are found by SRV records and in files.
func TestPeersFound(t *testing.T) {
	records := []*net.SRV{{Target: "a.shop.internal.", Port: 7400}, {Target: "b.shop.internal.", Port: 7401}}
	defer hosts.SetLookupSRV(func(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
		if service != "" || proto != "" || name != "_coppice._tcp.shop.internal" {
			t.Errorf("asked for %q %q %q", service, proto, name)
		}
		return name, records, nil
	})()
	want := map[string]string{"a": "a.shop.internal:7400", "b": "b.shop.internal:7401"}
	dns := hosts.DNS("_coppice._tcp.shop.internal")
	if got, err := dns.Hosts(t.Context()); err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	records = append(records, &net.SRV{Target: "a.other.internal.", Port: 7400})
	if _, err := dns.Hosts(t.Context()); err == nil {
		t.Error("a host has two addresses")
	}
	file := filepath.Join(t.TempDir(), "hosts")
	for text, ok := range map[string]bool{
		"# the shop\n\na  a.shop.internal:7400\nb\tb.shop.internal:7401": true,
		"a 1:1\na 2:2\n": false, "a\n": false, "a b c\n": false,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := hosts.PeersFile(file).Hosts(t.Context()); (err == nil) != ok || ok && !maps.Equal(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if _, err := hosts.PeersFile(file + "x").Hosts(t.Context()); err == nil {
		t.Error("no file, and no error")
	}
}
