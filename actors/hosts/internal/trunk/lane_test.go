package trunk_test

import (
	"errors"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coppice-go/coppice/actors/hosts/hoststest"
	"github.com/coppice-go/coppice/actors/hosts/internal/trunk"
	"github.com/coppice-go/coppice/fdipc"
)

// TestFrames: frames of each size arrive whole and in the order of their flow, by both ways into a sink, over
// a network that is slow and hands over few bytes at a time.
func TestFrames(t *testing.T) {
	for _, row := range []struct {
		name string
		full func(n int) bool
	}{
		{"room", func(int) bool { return false }},
		{"full", func(int) bool { return true }},
		{"now and then", func(n int) bool { return n%5 < 2 }},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n := hoststest.NewNet(3)
				n.Delay(10 * time.Millisecond)
				n.Chop(80_000)
				a, b := two(t, n)
				tries := 0
				sink := &collector{full: func() bool { tries++; return row.full(tries) }}
				l, _, ended := open(t, a, b, sink)
				sizes := []int{8, 100, 0, 32 << 10, 32<<10 + 1, 65 << 10, 200_000, 1 << 20}
				var want [2][]*fdipc.Frame
				for i := range 64 {
					which := fdipc.Lane(i % 2)
					f := numbered(which, i, sizes[i/2%len(sizes)])
					want[which] = append(want[which], f)
					if err := l.Send(t.Context(), f); err != nil {
						t.Fatal(err)
					}
				}
				l.End([]byte("done"))
				if e := <-ended; e.Err != nil || string(e.Reason) != "done" {
					t.Errorf("end: %+v", e)
				}
				var got [2][]*fdipc.Frame
				for _, f := range sink.frames {
					got[f.Lane] = append(got[f.Lane], &f)
				}
				for which := range want {
					if !reflect.DeepEqual(got[which], want[which]) {
						t.Errorf("flow %d: %d frames, or others than the %d that were sent", which, len(got[which]), len(want[which]))
					}
				}
				if err := l.Send(t.Context(), numbered(0, 1, 8)); !errors.Is(err, trunk.ErrEnded) {
					t.Errorf("send after the end: %v", err)
				}
			})
		})
	}
}

// TestSlowSink: a sink that takes nothing stops the senders of its own lane, after a window; what it holds is
// bounded; another lane goes on; what was sent arrives when the sink goes on.
func TestSlowSink(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := two(t, hoststest.NewNet(1))
		slow := &collector{full: func() bool { return true }, gate: make(chan struct{})}
		l, other, ended := open(t, a, b, slow)
		sent := 0
		senders := make(chan error, 1)
		go func() {
			for ; sent < 300; sent++ {
				if err := l.Send(t.Context(), numbered(fdipc.Data, sent, 1000)); err != nil {
					senders <- err
					return
				}
			}
			senders <- nil
		}()
		synctest.Wait()
		if sent*1064 > 64<<10 || (sent+1)*1064 < 64<<10 {
			t.Errorf("%d frames of 1,064 bytes were sent into a window of 64 KiB", sent)
		}
		if err := l.TrySend(numbered(fdipc.Data, 0, 1000)); !errors.Is(err, fdipc.ErrFull) {
			t.Errorf("TrySend: %v", err)
		}
		if held := other.Trunk().Stats().Held; held > 64<<10 {
			t.Errorf("%d bytes are held", held)
		}

		quick := &collector{}
		l2, _, _ := open(t, a, b, quick)
		for i := range 5000 {
			if err := l2.Send(t.Context(), numbered(fdipc.Data, i, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Send(t.Context(), numbered(fdipc.Control, 1, 8)); err != nil {
			t.Errorf("control beside full data: %v", err)
		}
		synctest.Wait()
		if quick.count() != 5000 {
			t.Errorf("the other lane got %d frames of 5000", quick.count())
		}

		close(slow.gate)
		if err := <-senders; err != nil {
			t.Error(err)
		}
		l.End(nil)
		if e := <-ended; e.Err != nil {
			t.Error(e)
		}
		n := 0
		for _, f := range slow.frames {
			if f.Lane == fdipc.Data {
				if f.Target != uint64(n)<<8 {
					t.Fatalf("frame %d is number %d", n, f.Target>>8)
				}
				n++
			}
		}
		if n != 300 {
			t.Errorf("%d frames of 300", n)
		}
	})
}
