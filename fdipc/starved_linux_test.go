package fdipc_test

import (
	"context"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

// kindTake are handles to claim and close, on one processor that others use too.
const kindTake fdipc.Kind = 0x44

// starved is the role of a receiver that hardly gets to run.
func starved(f *os.File, _ map[string]string) {
	runtime.GOMAXPROCS(1)
	var n atomic.Uint64 // each lane has a goroutine of its own
	c, err := fdipc.New(f, fdipc.Config{Credits: 64, Handler: func(c *fdipc.Conn, f *fdipc.Frame) {
		if f.Kind == kindCount {
			_ = c.TrySend(&fdipc.Frame{Kind: kindCount, Target: n.Load()})
			return
		}
		for _, h := range f.Handles {
			if h.Claim() == nil {
				n.Add(1)
			}
			h.Close()
		}
	}})
	if err != nil {
		panic(err)
	}
	var turns atomic.Uint64
	for range 2 { // they end with the process
		go func() {
			for {
				turns.Add(1)
			}
		}()
	}
	<-c.Done()
}

// Several senders share a small window to a receiver that has one processor, shared with busy
// loops, and is stopped and continued again and again. The sender never looks by itself and sets no
// deadline: one lost wake-up, in the credit, in a lane or in the table, and the test hangs.
// Everything arrives; nothing comes back.
func TestStarvedReceiver(t *testing.T) {
	rnd := seeds(t)
	count := make(chan uint64, 1)
	w := spawn(t, fdipc.WithoutTick(fdipc.Config{
		ClaimTimeout: -1, Credits: 64, QueueBytes: 8 << 10,
		Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { count <- f.Target },
		Resolved: func(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
			if o != fdipc.Claimed {
				t.Errorf("%v", o)
				h.Close()
			}
		},
	}), map[string]string{"ROLE": "starved"})
	src, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(src)
	stop := make(chan struct{})
	var stopper sync.WaitGroup
	pauses := rand.New(rand.NewPCG(rnd.Uint64(), 2))
	stopper.Go(func() { // the pauses are the test's load, not its clock
		for {
			for _, sig := range []unix.Signal{unix.SIGSTOP, unix.SIGCONT} {
				_ = w.cmd.Process.Signal(sig)
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(pauses.IntN(3000)) * time.Microsecond):
				}
			}
		}
	})
	const senders = 3
	frames := soak(80, 4000)
	var total [senders]int
	var wg sync.WaitGroup
	for s := range senders {
		sizes := rand.New(rand.NewPCG(rnd.Uint64(), 1))
		wg.Go(func() {
			for range frames {
				hs := make([]*fdipc.Handle, 1+sizes.IntN(64)>>sizes.IntN(6))
				for i := range hs {
					fd, err := unix.FcntlInt(uintptr(src), unix.F_DUPFD_CLOEXEC, 0)
					if err != nil {
						t.Error(err)
						return
					}
					hs[i] = fdipc.HandleFD(fd)
				}
				f := &fdipc.Frame{Kind: kindTake, Lane: fdipc.Lane(sizes.IntN(2)), Payload: make([]byte, sizes.IntN(3000)), Handles: hs}
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
				err := w.Send(ctx, f)
				cancel()
				if err != nil {
					t.Errorf("%v: %+v", err, w.Stats())
					return
				}
				total[s] += len(hs)
			}
		})
	}
	wg.Wait()
	close(stop)
	stopper.Wait()
	_ = w.cmd.Process.Signal(unix.SIGCONT)
	want := uint64(total[0] + total[1] + total[2])
	got := uint64(0)
	for got < want && !t.Failed() { // one lane may overtake the other
		if err := w.Send(context.Background(), &fdipc.Frame{Kind: kindCount}); err != nil {
			t.Fatal(err)
		}
		got = wait(t, "count", count)
	}
	w.ResolveOffers()
	if st := w.Stats(); got != want || st.Claimed != want || st.Outstanding != 0 || st.Returned != 0 {
		t.Errorf("%d sent, %d claimed there: %+v", want, got, st)
	}
	t.Logf("%d handles, %d wake-ups received", want, w.Stats().FramesReceived)
}
