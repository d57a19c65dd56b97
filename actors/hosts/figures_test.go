package hosts_test

import (
	"context"
	"net"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/internal/trunk"
	"github.com/coppice-go/coppice/tracing"
)

// TestFigures: what a gateway counts of its trunks is among the metrics, goes on when a trunk is
// lost and another one comes, and has no name that a stranger has chosen.
func TestFigures(t *testing.T) {
	c := newCluster(t, time.Minute, "a", "b")
	a := c.hosts["a"]
	from, pid := a.child("a").System, spawn(t, c.hosts["b"].child("b").System, "echo", echo)
	value := func(i *tracing.Instrument, host string, more ...attribute.KeyValue) int64 {
		want := attribute.NewSet(append(more, tracing.KeyPeerHost.String(host))...)
		for _, p := range a.meter.Collect() {
			if p.Instrument == i && p.Labels.Equals(&want) {
				return p.Value
			}
		}
		return -1
	}
	sent, received := tracing.KeyDirection.String("transmit"), tracing.KeyDirection.String("receive")
	answers(t, from, pid)
	if up, lanes := value(tracing.TrunksUp, "b"), value(tracing.TrunkLanes, "b"); up != 1 || lanes < 1 {
		t.Errorf("%d trunks with %d lanes", up, lanes)
	}
	for _, i := range []*tracing.Instrument{tracing.TrunkBytes, tracing.TrunkFrames} {
		if out, in := value(i, "b", sent), value(i, "b", received); out < 1 || in < 1 {
			t.Errorf("%s: %d sent, %d received", i.Name, out, in)
		}
	}
	until(t, "nothing is held", func() bool { return value(tracing.TrunkHeld, "b") == 0 })

	m, err := hosts.AskMembers(t.Context(), from)
	if err != nil || len(m.Hosts) != 3 || m.Hosts[0].Trunk != nil || m.Hosts[1].Trunk == nil || m.Hosts[1].Trunk.Lanes < 1 || m.Hosts[2].Trunk != nil {
		t.Errorf("members %+v, %v", m, err)
	}

	before := value(tracing.TrunkFrames, "b", received)
	c.net.Reset("a", "b")
	until(t, "the trunk is lost", func() bool { return value(tracing.TrunksLost, "b") == 1 })
	answers(t, from, pid)
	if now := value(tracing.TrunkFrames, "b", received); now <= before {
		t.Errorf("%d frames before the loss and %d after it", before, now)
	}

	other, err := trunk.New(trunk.Config{
		Cluster: "shed", Self: trunk.Host{Name: "stranger", Boot: "bootx"},
		Dial: func(ctx context.Context, address string) (net.Conn, error) { return c.net.Dial(ctx, "x", address) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	other.SetPeers(map[string]string{"a": "a"})
	until(t, "a stranger is refused", func() bool { return value(tracing.TrunksRefused, "") > 0 })
	if n := value(tracing.TrunksRefused, "stranger"); n != -1 {
		t.Errorf("%d under the name that it says", n)
	}
}
