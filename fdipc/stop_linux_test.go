package fdipc_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

// A worker is stopped and continued at any moment while connections are offered to it that are
// revoked after a few milliseconds. What comes back the test serves itself. Nobody is served twice,
// nobody not at all.
func TestStop(t *testing.T) {
	const mark = "1"
	rnd := seeds(t)
	rounds := soak(10000, 100000)
	b := newBook(0)
	type end struct {
		h *fdipc.Handle
		o fdipc.Outcome
	}
	ends := make(chan end, 1<<10)
	w := spawn(t, fdipc.Config{
		ClaimTimeout: 3 * time.Millisecond, Credits: 64,
		Handler:  b.handle,
		Resolved: func(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) { ends <- end{h, o} },
	}, map[string]string{"ROLE": "worker", "MARK": mark})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // the pauses are the test's load, not its clock
		for {
			for _, sig := range []unix.Signal{unix.SIGSTOP, unix.SIGCONT} {
				_ = w.cmd.Process.Signal(sig)
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(rnd.IntN(12000)) * time.Microsecond):
				}
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	sum := make(map[fdipc.Outcome]int)
	for done := 0; done < rounds; {
		batch := min(64, rounds-done)
		cs, hs := clients(t, batch)
		go func() {
			for _, h := range hs {
				if err := w.Send(context.Background(), &fdipc.Frame{Kind: kindConn, Lane: fdipc.Data, Handles: []*fdipc.Handle{h}}); err != nil {
					t.Error(err)
				}
			}
		}()
		for range batch {
			e := wait(t, "outcome", ends)
			c := e.h.Tag.(*client)
			c.outcome = e.o
			c.settled++
			sum[e.o]++
			if e.o == fdipc.Claimed {
				continue
			}
			conn, err := e.h.Conn()
			if err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write([]byte("0"))
			conn.Close()
		}
		readAll(t, cs)
		for _, c := range cs {
			want := "0"
			if c.outcome == fdipc.Claimed {
				want = mark
			}
			if string(c.got) != want || c.settled != 1 {
				t.Fatalf("client got %q, %v, settled %d times", c.got, c.outcome, c.settled)
			}
		}
		done += batch
	}
	st := w.Stats()
	t.Logf("%v; %d revoked in %d stalls", sum, st.Revoked, st.Stalls)
	if sum[fdipc.Claimed] == 0 || sum[fdipc.Returned] == 0 {
		t.Errorf("the race was never run: %v", sum)
	}
}
