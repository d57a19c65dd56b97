package fdipc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/coppice-go/coppice/fdipc"
)

// value is a handle that needs no descriptor.
func value(t *testing.T) *fdipc.Handle {
	h, err := fdipc.HandleOf(conn{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// The link is cut at every point, from either side, at the first, second and third occasion:
// nothing hangs, nothing is resolved twice, and every handle is claimed or comes back.
func TestCutEverywhere(t *testing.T) {
	for _, side := range []fdipc.FaultSide{fdipc.SideA, fdipc.SideB} {
		for _, point := range fdipc.FaultPoints {
			for n := range 3 {
				t.Run(fmt.Sprintf("%d/%v/%d", side, point, n), func(t *testing.T) {
					defer leaks(t)()
					outcomes := make(chan outcome, 100)
					ends := make(chan error, 2)
					claimed := make(map[string]int)
					var l fdipc.FaultLink
					l.Cut(side, point, n)
					a, b := l.Join(fdipc.Config{
						Credits:  2, // so that Wake is needed
						Handler:  func(*fdipc.Conn, *fdipc.Frame) {},
						Resolved: func(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) { outcomes <- outcome{h, o} },
						Closed:   func(_ *fdipc.Conn, err error) { ends <- err },
					}, fdipc.Config{
						Handler: func(c *fdipc.Conn, f *fdipc.Frame) {
							for _, h := range f.Handles {
								if h.Claim() == nil {
									claimed[h.Name()]++
								}
							}
							_ = c.TrySend(&fdipc.Frame{Kind: kind})
						},
						Closed: func(_ *fdipc.Conn, err error) { ends <- err },
					})
					sent := 0
					for i := range 10 {
						h := value(t).Named(fmt.Sprint(i))
						h.Tag = fmt.Sprint(i)
						if a.Send(context.Background(), &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h}}) != nil {
							break
						}
						sent++
						if a.Send(context.Background(), &fdipc.Frame{Kind: kind}) != nil {
							break
						}
					}
					a.Close()
					b.Close()
					a.PeerGone()
					b.PeerGone()
					_ = wait(t, "end", ends)
					_ = wait(t, "end", ends)
					if len(outcomes) != sent {
						t.Errorf("%d outcomes for %d handles", len(outcomes), sent)
					}
					for range len(outcomes) {
						o := <-outcomes
						want := 0
						if o.o == fdipc.Claimed {
							want = 1
						}
						if claimed[o.h.Tag.(string)] != want {
							t.Errorf("handle %v: %v, and claimed %d times", o.h.Tag, o.o, claimed[o.h.Tag.(string)])
						}
					}
				})
			}
		}
	}
}

// A packet that loses descriptors refuses the whole frame. The receiver hears of it by NoFiles, and
// gets the next frame.
func TestTruncate(t *testing.T) {
	outcomes := make(chan outcome, 10)
	lost := make(chan fdipc.Frame, 10)
	got := make(chan int, 10)
	var l fdipc.FaultLink
	struck := l.Truncate(fdipc.SideA, fdipc.AtHandles, 0, 1)
	a, b := l.Join(fdipc.Config{
		Handler:  func(*fdipc.Conn, *fdipc.Frame) {},
		Resolved: func(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) { outcomes <- outcome{h, o} },
	}, fdipc.Config{
		Handler: func(_ *fdipc.Conn, f *fdipc.Frame) {
			for _, h := range f.Handles {
				_ = h.Claim()
			}
			got <- len(f.Handles)
		},
		NoFiles: func(_ *fdipc.Conn, f *fdipc.Frame) { lost <- *f },
	})
	defer a.Close()
	hs := []*fdipc.Handle{value(t), value(t), value(t)}
	for i, want := range []fdipc.Outcome{fdipc.Refused, fdipc.Claimed} {
		if err := a.Send(context.Background(), &fdipc.Frame{Kind: kind, Target: uint64(i), Handles: hs}); err != nil {
			t.Fatal(err)
		}
		for range hs {
			if o := wait(t, "outcome", outcomes); o.o != want || want == fdipc.Refused && o.h.Reason() != fdipc.ReasonNoFiles {
				t.Errorf("%v, reason %d", o.o, o.h.Reason())
			}
		}
	}
	wait(t, "fault", struck)
	if f := wait(t, "frame without its handles", lost); f.Kind != kind || f.Target != 0 || f.Handles != nil {
		t.Errorf("%+v", f)
	}
	if n := wait(t, "frame", got); n != 3 || len(got) != 0 || b.Stats().Truncated != 1 {
		t.Errorf("%d handles, %d more frames, %+v", n, len(got), b.Stats())
	}
}

// What is held back on one lane holds back nothing on the other; a link that refuses is tried
// again.
func TestDelayAndRefuse(t *testing.T) {
	got := make(chan fdipc.Lane, 2)
	var l fdipc.FaultLink
	struck, release := l.Delay(fdipc.SideA, fdipc.AtFrames, 0)
	refused := l.Refuse(fdipc.SideA, fdipc.AtFrames, 1, 3)
	a, _ := l.Join(fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) {}},
		fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { got <- f.Lane }})
	defer a.Close()
	_ = a.Send(context.Background(), &fdipc.Frame{Kind: kind, Lane: fdipc.Data})
	wait(t, "delay", struck)
	_ = a.Send(context.Background(), &fdipc.Frame{Kind: kind, Lane: fdipc.Control})
	wait(t, "refusal", refused)
	if l := wait(t, "frame", got); l != fdipc.Control {
		t.Error(l)
	}
	release()
	if l := wait(t, "frame", got); l != fdipc.Data {
		t.Error(l)
	}
}

// Bytes no good peer sends end the Conn, with the name of the error.
func TestCorrupt(t *testing.T) {
	for _, bytes := range [][]byte{{}, {1}, make([]byte, 16), []byte("0123456789abcdefghijklmnop"), {0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}} {
		var l fdipc.FaultLink
		l.Corrupt(fdipc.SideA, fdipc.AtFrames, 0, bytes)
		a, b := l.Join(fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) {}}, fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) {}})
		_ = a.Send(context.Background(), &fdipc.Frame{Kind: kind})
		_ = a.Send(context.Background(), &fdipc.Frame{Kind: kind})
		if len(bytes) == 16 && bytes[4] == 0 { // a kind of a later version: skipped
			a.Close()
			wait(t, "end", b.Done())
			continue
		}
		wait(t, "end", b.Done())
		if !errors.Is(b.Err(), fdipc.ErrProtocol) {
			t.Errorf("%x: %v", bytes, b.Err())
		}
		a.Close()
	}
}

// conn is a connection that is only a Go value.
type conn struct{ net.Conn }

func (conn) Close() error { return nil }
