package hosts

import (
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/coppice-go/coppice/actors/hosts/internal/trunk"
	"github.com/coppice-go/coppice/tracing"
)

// trunkCounters count what a gateway has carried, by the name of the other host. The zero value is
// ready to use. Methods may be called concurrently.
type trunkCounters struct {
	mu sync.Mutex
	of map[string]*trunkFigures
}

// trunkFigures are those of all trunks to a host since the gateway was started.
type trunkFigures struct {
	live          *trunk.Trunk // nil: there is none
	lost, refused int64
	before        trunk.Stats // of those that have ended: bytes and frames
}

func (f *trunkCounters) changeLocked(host string) *trunkFigures {
	if f.of == nil {
		f.of = make(map[string]*trunkFigures)
	}
	if f.of[host] == nil {
		f.of[host] = new(trunkFigures)
	}
	return f.of[host]
}

func (f *trunkCounters) up(t *trunk.Trunk) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changeLocked(t.Peer().Name).live = t
}

func (f *trunkCounters) down(t *trunk.Trunk) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.changeLocked(t.Peer().Name)
	h.before, h.live = h.sum(t), nil
	h.lost++
}

// refused counts a connection that a human must see to. Strangers say what they like: peer is
// whether the host is one of the peers.
func (f *trunkCounters) refused(host string, peer bool) {
	if !peer {
		host = ""
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changeLocked(host).refused++
}

// sum adds a trunk, which may be nil, to those before it.
func (h *trunkFigures) sum(t *trunk.Trunk) trunk.Stats {
	if t == nil {
		return h.before
	}
	s := t.Stats()
	s.Sent += h.before.Sent
	s.Got += h.before.Got
	s.FramesSent += h.before.FramesSent
	s.FramesGot += h.before.FramesGot
	return s
}

// A TrunkInfo is what a gateway has counted of its trunks to a host since it was started.
type TrunkInfo struct {
	RTT        time.Duration `json:"rtt"`   // of the last beat that was answered; 0: there is none
	Lanes      int           `json:"lanes"` // that are open
	Held       int           `json:"held"`  // bytes from there that wait for processes of this host
	Sent       uint64        `json:"sent"`  // bytes, before TLS
	Got        uint64        `json:"got"`
	FramesSent uint64        `json:"framesSent"`
	FramesGot  uint64        `json:"framesGot"`
	Lost       int64         `json:"lost"` // trunks that have ended
}

// info returns what is known of the trunks to a host; nil if it never had one.
func (f *trunkCounters) info(host string) *TrunkInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.of[host]
	if h == nil || h.live == nil && h.lost == 0 {
		return nil
	}
	s := h.sum(h.live)
	return &TrunkInfo{s.RTT, s.Lanes, s.Held, s.Sent, s.Got, s.FramesSent, s.FramesGot, h.lost}
}

// measure has a meter emit the figures until stop is called.
func (f *trunkCounters) measure(m *tracing.Meter) (stop func()) {
	sent, received := tracing.KeyDirection.String("transmit"), tracing.KeyDirection.String("receive")
	return m.Watch(func(emit func(*tracing.Instrument, int64, ...attribute.KeyValue)) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for name, h := range f.of {
			host := tracing.KeyPeerHost.String(name)
			emit(tracing.TrunksRefused, h.refused, host)
			if name == "" { // strangers
				continue
			}
			s, up := h.sum(h.live), int64(0)
			if h.live != nil {
				up = 1
			}
			emit(tracing.TrunksUp, up, host)
			emit(tracing.TrunksLost, h.lost, host)
			emit(tracing.TrunkLanes, int64(s.Lanes), host)
			emit(tracing.TrunkHeld, int64(s.Held), host)
			emit(tracing.TrunkBytes, int64(s.Sent), host, sent)
			emit(tracing.TrunkBytes, int64(s.Got), host, received)
			emit(tracing.TrunkFrames, int64(s.FramesSent), host, sent)
			emit(tracing.TrunkFrames, int64(s.FramesGot), host, received)
		}
	})
}
