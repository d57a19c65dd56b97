package history

import (
	"context"
	"errors"
	"sync"
	"testing"
)

// read returns what a reader gets after its cursor, and how many entries it has lost.
func read(l *Log[int], cursor uint64) (got []int, lost uint64) {
	for _, e := range l.Kept(cursor, 1000) {
		got, lost = append(got, e.Value), lost+e.Lost
	}
	return got, lost
}

func TestLog(t *testing.T) {
	for _, tt := range []struct {
		name   string
		log    *Log[int]
		put    int
		cursor uint64
		first  int // the first that the reader gets; 0 = none
		lost   uint64
	}{
		{"nothing yet", New[int](4, 0, nil), 0, 0, 0, 0},
		{"all are kept", New[int](4, 0, nil), 4, 0, 1, 0},
		{"the oldest have gone", New[int](4, 0, nil), 10, 0, 7, 6},
		{"from a cursor", New[int](4, 0, nil), 10, 8, 9, 0},
		{"from a cursor that is not kept", New[int](4, 0, nil), 10, 3, 7, 3},
		{"from the newest", New[int](4, 0, nil), 10, 10, 0, 0},
		{"from a cursor of another log", New[int](4, 0, nil), 10, 99, 7, 6},
		{"as many as fit", New(100, 19, func(n int) int { return n }), 10, 0, 9, 8},
		{"the newest in any case", New(100, 5, func(n int) int { return n }), 10, 0, 10, 9},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for i := range tt.put {
				tt.log.Put(i + 1)
			}
			got, lost := read(tt.log, tt.cursor)
			if lost != tt.lost || (len(got) == 0) != (tt.first == 0) {
				t.Fatalf("got %v, lost %d", got, lost)
			}
			for i, v := range got {
				if v != tt.first+i {
					t.Fatalf("got %v, from %d", got, tt.first)
				}
			}
			if len(got) > 0 && got[len(got)-1] != tt.put {
				t.Errorf("got %v, up to %d", got, tt.put)
			}
		})
	}
}

// TestNextWaits: each of several readers gets every entry, and the end.
func TestNextWaits(t *testing.T) {
	l := New[int](1000, 0, nil)
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			var cursor uint64
			for want := 1; ; want++ {
				e, err := l.Next(t.Context(), cursor)
				if errors.Is(err, ErrClosed) && want == 501 {
					return
				}
				if err != nil || e.Value != want || e.Lost != 0 {
					t.Errorf("got %+v, %v, want %d", e, err, want)
					return
				}
				cursor = e.Cursor
			}
		})
	}
	for i := range 500 {
		l.Put(i + 1)
	}
	l.Close()
	l.Put(501) // too late
	readers.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New[int](1, 0, nil).Next(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestKeptWhilePut: what a reader has got stays as it is, however much comes meanwhile.
func TestKeptWhilePut(t *testing.T) {
	l := New[int](8, 0, nil)
	var puts sync.WaitGroup
	puts.Go(func() {
		for i := range 1000 {
			l.Put(i + 1)
		}
	})
	for last := 0; last < 1000; {
		for i, e := range l.Kept(0, 8) {
			if e.Value != int(e.Cursor) || (e.Lost != 0) != (i == 0 && e.Cursor > 1) {
				t.Fatalf("entry %d is %+v", i, e)
			}
			last = e.Value
		}
	}
	puts.Wait()
}
