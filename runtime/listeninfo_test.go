package coppice

import (
	"testing"
	"time"
)

// A Tree with listeners reaches a worker that asks for it.
func TestListenerInfoCrosses(t *testing.T) {
	sent := ListenerInfo{
		Name: "http", Addr: addr{"tcp", "[::1]:80"}, Policy: LeastLoaded, Paused: true,
		Stats: &ListenerStats{}, StatsAt: time.Now().Round(0), Fairness: 0.5,
	}
	b, err := sent.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var got ListenerInfo
	if err := got.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	if got.Addr.Network() != "tcp" || got.Addr.String() != "[::1]:80" || got.Name != "http" || got.Policy != LeastLoaded ||
		!got.Paused || got.Fairness != 0.5 || got.Stats == nil || !got.StatsAt.Equal(sent.StatsAt) {
		t.Errorf("got %+v", got)
	}
}
