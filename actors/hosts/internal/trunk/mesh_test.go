package trunk_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coppice-go/coppice/actors/hosts/hoststest"
	"github.com/coppice-go/coppice/actors/hosts/internal/trunk"
	"github.com/coppice-go/coppice/fdipc"
)

// soak makes long rows of some tests.
var soak = os.Getenv("COPPICE_SOAK") == "1"

// TestDialBoth: two hosts that dial each other at the same time get one trunk, which carries lanes
// of both, and no other one comes after it.
func TestDialBoth(t *testing.T) {
	for seed := range uint64(20) {
		bubble(t, func(t *testing.T) {
			n := hoststest.NewNet(seed)
			n.Delay(20 * time.Millisecond)
			a, b := two(t, n)
			for _, pair := range [][2]*host{{a, b}, {b, a}} {
				sink := &collector{}
				l, _, ended := open(t, pair[0], pair[1], sink)
				if err := l.Send(t.Context(), numbered(fdipc.Data, 1, 8)); err != nil {
					t.Fatal(err)
				}
				l.End(nil)
				if e := <-ended; e.Err != nil || sink.count() != 1 {
					t.Errorf("%d frames, then %v", sink.count(), e)
				}
			}
			<-time.After(time.Minute)
			if n.Conns() != 1 || len(a.history) != 1 || len(b.history) != 1 {
				t.Errorf("seed %d: %d connections; a: %v, b: %v", seed, n.Conns(), a.history, b.history)
			}
			if s := a.Trunk("b").Stats(); s.RTT <= 0 || s.RTT > 40*time.Millisecond || s.Silence > time.Second {
				t.Errorf("stats: %+v", s)
			}
		})
	}
}

// TestSilence: a trunk is lost when nothing has come for the silence, in whatever way the hosts are
// cut off; its lanes hear of it, and Down comes after them. After the heal there is another trunk.
func TestSilence(t *testing.T) {
	for name, cut := range map[string]func(n *hoststest.Net){
		"both ways": func(n *hoststest.Net) { n.Cut("a", "b") },
		"one way":   func(n *hoststest.Net) { n.CutOneWay("a", "b") },
		"other way": func(n *hoststest.Net) { n.CutOneWay("b", "a") },
		"isolated":  func(n *hoststest.Net) { n.Isolate("b") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n := hoststest.NewNet(1)
				a, b := two(t, n)
				l, _, ended := open(t, a, b, &collector{full: func() bool { return true }, gate: make(chan struct{})})
				ours := make(chan *trunk.LaneEnd, 1)
				l.Join(&collector{}, func(e *trunk.LaneEnd) { ours <- e })
				if err := l.Send(t.Context(), numbered(fdipc.Data, 1, 8)); err != nil {
					t.Fatal(err)
				}
				cut(n)
				began := time.Now()
				sent := make(chan error)
				go func() {
					for {
						if err := l.Send(t.Context(), numbered(fdipc.Data, 1, 1000)); err != nil {
							sent <- err
							return
						}
					}
				}()
				for _, h := range []*host{a, b} {
					if err := (<-h.down).err; !errors.Is(err, trunk.ErrLost) {
						t.Errorf("down: %v", err)
					}
				}
				if d := time.Since(began); d > 2500*time.Millisecond {
					t.Errorf("both sides know after %v", d)
				}
				for _, e := range []error{<-ended, <-ours, <-sent} {
					if !errors.Is(e, trunk.ErrLost) {
						t.Errorf("a lane's end: %v", e)
					}
				}
				if _, _, err := l.Trunk().Open(t.Context(), nil); !errors.Is(err, trunk.ErrLost) {
					t.Errorf("open: %v", err)
				}
				n.Heal()
				began = time.Now()
				<-a.up
				<-b.up
				if d := time.Since(began); d > 10*time.Second {
					t.Errorf("a new trunk after %v", d)
				}
				open(t, b, a, &collector{})
			})
		})
	}
}

// TestShortSilence: a hole shorter than the silence is not seen, and nothing is lost in it.
func TestShortSilence(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := hoststest.NewNet(1)
		a, b := two(t, n)
		sink := &collector{}
		l, _, ended := open(t, a, b, sink)
		n.Cut("a", "b")
		for i := range 50 {
			if err := l.Send(t.Context(), numbered(fdipc.Data, i, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(time.Second)
		n.Heal()
		<-time.After(time.Minute)
		l.End(nil)
		if e := <-ended; e.Err != nil || sink.count() != 50 || len(a.history)+len(b.history) != 2 {
			t.Errorf("%v, %d frames, %v, %v", e, sink.count(), a.history, b.history)
		}
	})
}

// TestBreakEverywhere: a connection that breaks after any number of bytes, in the handshake or
// later, costs frames at the end and none before, and the hosts come together again.
func TestBreakEverywhere(t *testing.T) {
	step := 17
	if testing.Short() {
		step = 41
	}
	if soak {
		step = 1
	}
	for at := 1; at < 800; at += step {
		bubble(t, func(t *testing.T) {
			n := hoststest.NewNet(uint64(at))
			n.BreakAfter(at)
			a, b := start(t, n, "a", nil), start(t, n, "b", nil)
			a.SetPeers(peers("a", "b"))
			b.SetPeers(peers("a", "b"))
			select {
			case tr := <-a.up: // and lost soon, with what goes over it
				sink, ended := &collector{}, make(chan *trunk.LaneEnd, 1)
				l, _, err := tr.Open(t.Context(), nil)
				if err == nil {
					other := <-b.opened
					other.Join(sink, func(e *trunk.LaneEnd) { ended <- e })
					for i := 0; err == nil; i++ {
						err = l.Send(t.Context(), numbered(fdipc.Data, i, 50))
					}
					if e := <-ended; !errors.Is(e, trunk.ErrLost) {
						t.Error(e)
					}
					for i, f := range sink.frames {
						if f.Target != uint64(i)<<8 {
							t.Fatalf("frame %d is number %d", i, f.Target>>8)
						}
					}
				}
				if !errors.Is(err, trunk.ErrLost) {
					t.Errorf("%v", err)
				}
				<-a.down
			case <-a.failed:
			case <-b.failed:
			}
			n.BreakAfter(0)
			<-time.After(time.Minute)
			if ta, tb := a.Trunk("b"), b.Trunk("a"); ta == nil || tb == nil || n.Conns() != 1 {
				t.Errorf("broken after %d bytes: trunks %v, %v, %d connections", at, ta, tb, n.Conns())
			}
		})
	}
}

// TestThousandLosses: goroutines, connections and memory are at base after trunks that were lost
// with lanes, senders and sinks that waited: a thousand with COPPICE_SOAK=1.
func TestThousandLosses(t *testing.T) {
	losses := 30
	if soak {
		losses = 1000
	}
	bubble(t, func(t *testing.T) {
		n := hoststest.NewNet(1)
		a, b := two(t, n)
		var goroutines, heap uint64
		for i := range losses {
			if i == losses/10 {
				goroutines, heap = usage()
			}
			var ends []chan *trunk.LaneEnd
			for k := range 4 {
				l, _, ended := open(t, []*host{a, b}[k%2], []*host{b, a}[k%2], &collector{full: func() bool { return true }, gate: make(chan struct{})})
				ends = append(ends, ended)
				f := numbered(fdipc.Data, 1, []int{8000, 33_000}[k/2])
				go func() {
					for err := error(nil); err == nil; err = l.Send(context.Background(), f) {
					}
				}()
			}
			synctest.Wait()
			n.Reset("a", "b")
			for _, ended := range ends {
				if e := <-ended; !errors.Is(e, trunk.ErrLost) {
					t.Fatal(e)
				}
			}
			<-a.down
			<-b.down
			<-a.up
			<-b.up
		}
		synctest.Wait()
		if g, h := usage(); g > goroutines || h > heap+1<<20 || n.Conns() != 1 {
			t.Errorf("%d goroutines, %d at base; heap %d, %d at base; %d connections", g, goroutines, h, heap, n.Conns())
		}
	})
}

// usage returns the goroutines and the heap.
func usage() (goroutines, heap uint64) {
	synctest.Wait()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return uint64(runtime.NumGoroutine()), m.HeapAlloc
}

// TestJoinsAndLeaves: a host that is no longer a peer loses its trunk and is refused; as a peer
// again it gets one. Nothing of it is left in between: 500 times with COPPICE_SOAK=1.
func TestJoinsAndLeaves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := hoststest.NewNet(1)
		a, b := two(t, n)
		goroutines, heap := usage()
		times := 50
		if soak {
			times = 500
		}
		for range times {
			a.SetPeers(nil)
			if err := (<-b.down).err; !strings.Contains(err.Error(), "no longer a peer") {
				t.Fatal(err)
			}
			if err := (<-b.failed).err; !errors.Is(err, trunk.ErrRefused) || !strings.Contains(err.Error(), "b is not one of the peers") {
				t.Fatal(err)
			}
			a.SetPeers(peers("a", "b"))
			<-a.up
			<-b.up
			<-a.down
			for len(a.failed)+len(b.failed) > 0 {
				select {
				case <-a.failed:
				case <-b.failed:
				}
			}
		}
		if g, h := usage(); g > goroutines || h > heap+1<<20 {
			t.Errorf("%d goroutines, %d at base; heap %d, %d at base", g, goroutines, h, heap)
		}
		for i, what := range a.history {
			if want := []string{"up", "down"}[i%2]; what != want {
				t.Fatalf("call %d of a is %s", i, what)
			}
		}
	})
}

// TestThreeHosts: each host has a trunk to each; a cut between two leaves the third's.
func TestThreeHosts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := hoststest.NewNet(5)
		var hs []*host
		for _, name := range []string{"a", "b", "c"} {
			hs = append(hs, start(t, n, name, nil))
		}
		for _, h := range hs {
			h.SetPeers(peers("a", "b", "c"))
		}
		for _, h := range hs {
			<-h.up
			<-h.up
		}
		n.Cut("a", "b")
		<-hs[0].down
		<-hs[1].down
		open(t, hs[0], hs[2], &collector{})
		open(t, hs[2], hs[1], &collector{})
		var names []string
		for _, tr := range hs[2].Trunks() {
			names = append(names, tr.Peer().Name)
		}
		if fmt.Sprint(names) != "[a b]" || hs[0].ByBoot("bootb") != nil || hs[0].ByBoot("bootc") == nil || hs[0].Trunk("b") != nil {
			t.Errorf("c has trunks to %v", names)
		}
	})
}

// TestConfig: each wrong field is named.
func TestConfig(t *testing.T) {
	_, err := trunk.New(trunk.Config{
		Cluster: "a b", Self: trunk.Host{Name: "-x", Boot: ""}, Silence: time.Millisecond,
		Files: &trunk.CertFiles{Cert: "/nowhere/cert.pem"},
	})
	for _, want := range []string{`Cluster "a b"`, `Self.Name "-x"`, `Self.Boot ""`, "Silence 1ms", "/nowhere/cert.pem"} {
		if !errors.Is(err, trunk.ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: lacks %s", err, want)
		}
	}
}
