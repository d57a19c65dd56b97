package netactor

import (
	"fmt"
	"testing"
)

func TestRoundRobinIsCyclic(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tr := newTree(t, mem)
		const workers, rounds = 3, 200
		var addr string
		for i := range workers {
			w := tr.worker("web", i)
			ln := w.mustListen(Request{Network: "tcp", Address: "127.0.0.1:0"})
			if addr == "" {
				addr = ln.Addr().String()
			} else if addr != ln.Addr().String() {
				t.Fatalf("port 0 gave %s, then %s", addr, ln.Addr())
			}
			go serveID(ln, fmt.Sprint(i))
		}
		until(t, "all workers to join", func() bool { return len(tr.stats().Workers) == workers })
		var got [workers]int
		for range rounds {
			var i int
			fmt.Sscan(ask1(t, "tcp", addr), &i)
			got[i]++
		}
		for _, n := range got {
			if n < rounds/workers || n > rounds/workers+1 {
				t.Fatalf("shares %v differ by more than 1", got)
			}
		}
		until(t, "counts to settle", func() bool { return tr.stats().Counts.Claimed == rounds })
		if c := tr.stats().Counts; !c.Balanced() {
			t.Fatalf("counts do not balance: %+v", c)
		}
	})
}
