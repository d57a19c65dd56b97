package shm

import (
	"testing"
	"time"

	"github.com/coppice-go/coppice/netactor"
)

func TestHistogram(t *testing.T) {
	var h netactor.HandOverTimes
	if h.Quantile(0.5) != 0 {
		t.Error("a quantile of nothing")
	}
	for range 99 {
		h[bucket(time.Microsecond)]++
	}
	h[bucket(time.Hour)]++
	if h.Quantile(0.5) != bounds[0] || h.Quantile(1) != 2*time.Second || h.Count() != 100 || bucket(-1) != 0 {
		t.Errorf("%v: %v, %v", h, h.Quantile(0.5), h.Quantile(1))
	}
}
