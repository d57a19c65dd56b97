package hosts_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/internal/trunk"
)

// TestJoinsAndLeaves: 500 hosts that join one after the other, each a new start of b, and leave
// while something is asked of them, leave nothing behind in those that stay.
func TestJoinsAndLeaves(t *testing.T) {
	if testing.Short() {
		t.Skip("has 500 hosts join")
	}
	c := newNetwork(t, time.Minute)
	c.edit = func(cfg *hosts.Config) { cfg.SetLastWait(100 * time.Millisecond) } // which keeps a lost trunk
	c.start("a", "boota")
	a := c.hosts["a"]
	from := a.child("a").System
	round := func(n int) {
		up := make(chan *trunk.Trunk, 1)
		boot := fmt.Sprint("boot-b-", n)
		m, err := trunk.New(trunk.Config{
			Cluster: "shop", Self: trunk.Host{Name: "b", Boot: boot, Incarnation: uint64(n + 1)}, Silence: c.silence,
			Open: func(l *trunk.Lane, _ []byte) { l.End(nil) },
			Dial: func(ctx context.Context, address string) (net.Conn, error) { return c.net.Dial(ctx, "b", address) },
			Up:   func(t *trunk.Trunk) { up <- t },
		})
		if err != nil {
			t.Fatal(err)
		}
		m.SetPeers(map[string]string{"a": "a"})
		next(t, "a trunk", up)
		until(t, "a knows the trunk", func() bool { tr := a.mesh.Trunk("b"); return tr != nil && tr.Peer().Boot == boot })
		asked := make(chan error, 1)
		go func() {
			_, err := from.Ask(t.Context(), actors.ProcessPID(boot+".1"), "x")
			asked <- err
		}()
		_ = m.Close()
		if err := next(t, "the end of an ask", asked); err == nil {
			t.Error("an answer by none")
		}
		until(t, "a knows that the trunk is lost", func() bool { return a.mesh.Trunk("b") == nil })
	}
	files := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return len(all)
	}
	heap := func() int64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	for n := range 20 { // what is kept once for all
		round(n)
	}
	goroutines, descriptors, bytes := runtime.NumGoroutine(), files(), heap()
	for n := range 500 {
		round(20 + n)
	}
	until(t, "goroutines, descriptors and memory are those of before", func() bool { // some wait for a timer
		return runtime.NumGoroutine() <= goroutines+3 && files() <= descriptors+3 && heap() <= bytes+2<<20
	})
	t.Logf("%d goroutines, before %d; %d descriptors, before %d; %d bytes more", runtime.NumGoroutine(), goroutines, files(), descriptors, heap()-bytes)
}
