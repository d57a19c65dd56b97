package dispatch

import (
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/balance"
	"github.com/coppice-go/coppice/netactor/internal/wire"
	"github.com/coppice-go/coppice/tracing"
)

// TestSettledAt: the time that a worker reports counts if it can be true.
func TestSettledAt(t *testing.T) {
	offered := time.Now()
	tr := &connTrace{offered: offered}
	for name, said := range map[string]time.Time{
		"nothing": {}, "before the offer": offered.Add(-time.Second), "to come": offered.Add(time.Hour), "the end of time": time.Unix(0, 1<<63-1),
	} {
		if at := tr.settledAt(said); at.Before(offered) || at.After(time.Now()) {
			t.Errorf("%s: %v", name, at)
		}
	}
	said := time.Unix(0, time.Now().UnixNano())
	if at := tr.settledAt(said); !at.Equal(said) {
		t.Errorf("%v, said was %v", at, said)
	}
}

// An offer is traced without the lock, while the link that it goes over may end.
func TestTraceOfferBesideEndOfLink(t *testing.T) {
	d, l := testListener()
	cfg := fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) {}}
	link, other := fdipc.Pipe(cfg, cfg)
	defer other.Close()
	defer link.Close()
	d.AddWorker(netactor.Worker{ID: 1}, link)
	conn := &balance.PendingConn{FD: -1, Trace: &connTrace{meter: new(tracing.HandoffMeter)}}
	d.balancer.Accepted(conn, l)
	d.balancer.Place(l).Via = link
	ended := make(chan struct{})
	go func() { defer close(ended); d.RemoveLink(1, link) }()
	traceOffer(conn)
	<-ended
}

// Tracing that is off costs no allocation; nor does the balancer, once it has grown.
func TestAllocations(t *testing.T) {
	d, l := testListener()
	conn := &balance.PendingConn{FD: -1}
	acc := &acceptor{dispatcher: d, listener: l}
	ended := uint64(0)
	if n := testing.AllocsPerRun(100, func() {
		traceAccepted(conn, acc)
		d.balancer.Accepted(conn, l)
		w := d.balancer.Place(l).OfferedTo.Worker
		traceOffer(conn)
		traceSettled(conn, fdipc.Claimed, 0)
		d.balancer.Settled(conn, fdipc.Claimed, 0, false, time.Time{})
		ended++
		d.balancer.Finished(w, 1, ended)
	}); n != 0 {
		t.Errorf("%v allocations a connection", n)
	}
}

// testListener returns a dispatcher with listener 1, and one worker that has joined it.
func testListener() (*Dispatcher, *balance.ListenerState) {
	d := New(Config{})
	l := d.balancer.AddListener(1, wire.Opening{}, netactor.Functions{})
	w := d.balancer.AddWorker(netactor.Worker{ID: 1})
	w.Credit = 1000
	d.balancer.Join(w, 1, 0)
	return d, l
}

// BenchmarkTraceOff: one op is every tracing call for one connection in the listener process, with
// tracing off: the cost over a build without tracing.
func BenchmarkTraceOff(b *testing.B) {
	d, l := testListener()
	acc := &acceptor{dispatcher: d, listener: l}
	conn := &balance.PendingConn{FD: -1}
	b.ReportAllocs()
	for b.Loop() {
		traceAccepted(conn, acc)
		traceOffer(conn)
		traceSettled(conn, fdipc.Claimed, 0)
	}
}
