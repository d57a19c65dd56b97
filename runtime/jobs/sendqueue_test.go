package jobs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/runtime/internal/memfile"
)

// slow is a process that reads what comes while reads is closed. A message is a string.
type slow struct {
	reads chan struct{}
	got   []string
}

func (s *slow) Send(ctx context.Context, _ *actor.PID, m any) error {
	select {
	case <-s.reads:
		s.got = append(s.got, m.(string))
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *slow) TrySend(_ context.Context, to *actor.PID, m any) error {
	select {
	case <-s.reads:
		return s.Send(context.Background(), to, m)
	default:
		return actors.ErrBusy
	}
}

// heavy is as much as a process may leave unread, and more.
type heavy struct{}

func (heavy) unread() (int, bool) { return maxUnread + 1, false }

// TestSendQueue has a process that does not read for a time, and then for ever: what is sent to it
// does not wait, comes in order, and is dropped beyond a bound, in bytes and in time.
func TestSendQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &slow{reads: make(chan struct{})}
		b := &sendQueue{sender: to}
		failed := make(chan string, 10)
		put := func(m any) {
			b.put(parcel{m: m, failed: func(err error) { failed <- fmt.Sprint(m, ": ", err) }})
		}
		for _, m := range []string{"1", "2", "3"} {
			put(m)
		}
		synctest.Wait()
		close(to.reads)
		synctest.Wait() // until then "4" would wait behind them
		put("4")
		if fmt.Sprint(to.got, len(failed), b.unread) != "[1 2 3 4] 0 0" {
			t.Error("came:", to.got, "failed:", len(failed), "unread:", b.unread)
		}
		to.reads = make(chan struct{})
		put("5")
		long := &run{body: body{Size: 2 * maxUnread}}
		put(long) // counted against Config.QueueBytes
		put(heavy{})
		if len(failed) != 0 {
			t.Error("failed below the bound:", <-failed)
		}
		put("6")
		if got := <-failed; got != "6: context deadline exceeded" {
			t.Error("above the bound, failed:", got)
		}
		time.Sleep(replyWait + 1) // of the bubble's clock
		synctest.Wait()
		if got := <-failed + ", " + <-failed + ", " + <-failed; got != fmt.Sprintf("5: context deadline exceeded, %v: context deadline exceeded, {}: context deadline exceeded", long) || len(failed)+b.unread != 0 {
			t.Error("after the time, failed:", got, "and", len(failed), "more, unread:", b.unread)
		}
	})
}

// TestForget ends the context of a call while the queue takes nothing: the call does not wait for
// it.
func TestForget(t *testing.T) {
	sys, err := actors.NewSystem(actors.Config{Address: "0"})
	if err != nil {
		t.Fatal(err)
	}
	began, reads, told := make(chan struct{}), make(chan struct{}), make(chan string, 1)
	queue, err := sys.SpawnSpec(t.Context(), actors.Spec{Bound: 1, New: func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			switch m := ctx.Message().(type) {
			case bool:
				if m {
					close(began)
					<-reads
				}
			case cancel:
				told <- m.ID
			}
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := sys.Send(t.Context(), queue, true); err != nil {
		t.Fatal(err)
	}
	<-began
	if err := sys.Send(t.Context(), queue, false); err != nil { // the one for which there is room
		t.Fatal(err)
	}
	s := &caller{ctx: atOnce, sys: sys, queue: queue, m: &submit{ID: "1"}}
	if _, ok := errors.AsType[*CanceledError](s.failed(context.Canceled)); !ok {
		t.Error("another error")
	}
	close(reads)
	<-told
}

// TestFailed has the errors of a call that did not come to the queue, or whose answer did not come.
func TestFailed(t *testing.T) {
	s := &caller{ctx: t.Context(), pool: "work"}
	for _, tt := range []struct{ err, want error }{
		{actors.ErrMalformed, &RefusedError{}},
		{actors.ErrType, &RefusedError{}},
		{actors.ErrFull, &FullError{}},
		{actors.ErrBusy, &FullError{}},
		{actors.ErrTooMany, &FullError{}},
		{actors.ErrNoActor, &GoneError{}},
		{&actors.DownError{}, &GoneError{}},
		{errors.New("other"), &GoneError{}},
	} {
		got := s.failed(fmt.Errorf("ask: %w", tt.err))
		if fmt.Sprintf("%T", got) != fmt.Sprintf("%T", tt.want) || !strings.Contains(got.Error(), tt.err.Error()) {
			t.Errorf("%v: %T %v, want %T", tt.err, got, got, tt.want)
		}
	}
}

// TestSizeOfAnother decodes a value whose sender says that it is longer than there is memory.
func TestSizeOfAnother(t *testing.T) {
	f, err := memfile.Sealed("test", []byte("abc"))
	if err != nil {
		t.Skip(err)
	}
	v, err := decode[string](&body{Enc: encString, Size: 1 << 47, handles: []any{f}})
	if err == nil {
		t.Error("it was decoded, to", len(v), "bytes")
	}
}
