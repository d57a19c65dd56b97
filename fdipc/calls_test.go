package fdipc

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
)

type note struct{ to string }

func begin(t *testing.T, cs *Calls[note, int], to string) *Call[note, int] {
	t.Helper()
	c, err := cs.Begin(note{to})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCallsEnd(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	over := make(chan struct{})
	close(over)
	failed := errors.New("failed")
	for _, tt := range []struct {
		name string
		end  func(cs *Calls[note, int], c *Call[note, int])
		ctx  context.Context
		over chan struct{}
		want int
		err  error
	}{
		{"by its reply", func(cs *Calls[note, int], c *Call[note, int]) { cs.Finish(c.ID, 7, nil) }, context.Background(), nil, 7, nil},
		{"by an error", func(cs *Calls[note, int], c *Call[note, int]) { cs.Finish(c.ID, 0, failed) }, context.Background(), nil, 0, failed},
		{"by what took it", func(cs *Calls[note, int], c *Call[note, int]) {
			if taken := cs.Take(c.ID); taken != c {
				t.Errorf("took %v", taken)
			}
			c.Finish(8, nil)
		}, context.Background(), nil, 8, nil},
		{"with its peer", func(cs *Calls[note, int], _ *Call[note, int]) {
			cs.Fail(func(about *note) error {
				if about.to == "a" {
					return failed
				}
				return nil
			})
		}, context.Background(), nil, 0, failed},
		{"with its context", nil, ended, nil, 0, context.Canceled},
		{"with the channel", nil, context.Background(), over, 0, ErrPeerLost},
		{"by its reply, though both have ended", func(cs *Calls[note, int], c *Call[note, int]) { cs.Finish(c.ID, 7, nil) }, ended, over, 7, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var cs Calls[note, int]
			c, other := begin(t, &cs, "a"), begin(t, &cs, "b")
			if tt.end != nil {
				tt.end(&cs, c)
			}
			if got, err := c.Wait(tt.ctx, tt.over); got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%d, %v; want %d, %v", got, err, tt.want, tt.err)
			}
			if cs.Finish(c.ID, 9, nil) || cs.Take(c.ID) != nil || cs.Update(c.ID, nil) || c.Cancel() {
				t.Error("it ended twice")
			}
			if cs.Len() != 1 || !cs.Update(other.ID, nil) {
				t.Error("the other call has ended too")
			}
		})
	}
}

func TestCallsUnknownNumbers(t *testing.T) {
	var cs Calls[note, int]
	c := begin(t, &cs, "a")
	for _, id := range []uint64{0, c.ID + 1, c.ID + 1<<32, math.MaxUint64} {
		if cs.Finish(id, 1, nil) {
			t.Errorf("%#x ended a call", id)
		}
	}
	cs.Update(c.ID, func(about *note) { about.to = "b" })
	if !c.Cancel() || c.Cancel() || c.About.to != "b" {
		t.Error("not cancelled once, or not updated")
	}
}

func TestCallsNumbersBeginAnew(t *testing.T) {
	var cs Calls[note, int]
	first := begin(t, &cs, "a")
	cs.last = math.MaxUint32 - 1
	if last := begin(t, &cs, "b"); last.ID != math.MaxUint32 {
		t.Errorf("the last is %d", last.ID)
	}
	if next := begin(t, &cs, "c"); next.ID != 2 || first.ID != 1 { // 0 is none, 1 is taken
		t.Errorf("after the last comes %d", next.ID)
	}
}

func TestCallsLimit(t *testing.T) {
	cs := Calls[note, int]{Limit: 1}
	c := begin(t, &cs, "a")
	if _, err := cs.Begin(note{}); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), ": 1 wait") {
		t.Errorf("beyond the limit: %v", err)
	}
	c.Cancel()
	begin(t, &cs, "b")
}

// A reply that comes while its caller gives up ends the call, or Finish reports that there is none.
func TestCallsReplyWhileGivenUp(t *testing.T) {
	var cs Calls[note, int]
	for range 1000 {
		c := begin(t, &cs, "a")
		ctx, cancel := context.WithCancel(context.Background())
		var taken bool
		var wg sync.WaitGroup
		wg.Go(cancel)
		wg.Go(func() { taken = cs.Finish(c.ID, 1, nil) })
		got, err := c.Wait(ctx, nil)
		wg.Wait()
		if taken != (got == 1 && err == nil) {
			t.Fatalf("the reply was taken: %v; the caller has %d, %v", taken, got, err)
		}
	}
	if cs.Len() != 0 {
		t.Errorf("%d calls are left", cs.Len())
	}
}

func TestCallsDoUnsent(t *testing.T) {
	var cs Calls[note, int]
	a, b := Pipe(Config{Handler: func(*Conn, *Frame) {}}, Config{Handler: func(*Conn, *Frame) {}})
	defer b.Close()
	a.Close()
	if _, err := cs.Do(context.Background(), a, &Frame{Kind: 0x40}, note{}); !errors.Is(err, ErrClosed) || cs.Len() != 0 {
		t.Errorf("over a closed Conn: %v, %d calls left", err, cs.Len())
	}
}

// A reply to a call of the image before finds no call of the next one.
func TestCallsRestore(t *testing.T) {
	var old, cs Calls[note, int]
	late, err := old.Begin(note{})
	if err != nil {
		t.Fatal(err)
	}
	cs.Restore(old.Last())
	c, err := cs.Begin(note{})
	if err != nil {
		t.Fatal(err)
	}
	if cs.Finish(late.ID, 1, nil) || !cs.Finish(c.ID, 2, nil) {
		t.Errorf("calls %d and then %d", late.ID, c.ID)
	}
}

// One op is one call: begun, finished, waited for.
func BenchmarkCalls(b *testing.B) {
	var cs Calls[note, int]
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		c, _ := cs.Begin(note{"a"})
		cs.Finish(c.ID, 1, nil)
		if _, err := c.Wait(ctx, nil); err != nil {
			b.Fatal(err)
		}
	}
}
