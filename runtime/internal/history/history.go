// Package history keeps the latest of what happened, for readers that may come, leave and come
// again: each has a cursor, and learns how much it has missed.
package history

import (
	"context"
	"errors"
	"sync"
)

// ErrClosed is returned by Next when there will be no further entry.
var ErrClosed = errors.New("history: closed")

// A Log keeps the latest entries that were put into it. Its methods may be called by any goroutine;
// none of them waits but Next. While no reader waits, Put does nothing but keep the entry.
type Log[T any] struct {
	max, maxBytes int
	size          func(T) int

	mu      sync.Mutex
	entries []T    // that are kept, oldest first; they do not change
	last    uint64 // the cursor of the newest; 0 = there was none
	bytes   int
	changed chan struct{} // closed by the next Put or Close; nil while no reader waits
	closed  bool
}

// New returns a Log of at most max entries. If size is not nil, their sizes add up to at most
// maxBytes, but for the newest, which is kept in any case.
func New[T any](max, maxBytes int, size func(T) int) *Log[T] {
	return &Log[T]{max: max, maxBytes: maxBytes, size: size}
}

// Put adds an entry. After Close it does nothing.
func (l *Log[T]) Put(v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.entries = append(l.entries, v)
	if l.size != nil {
		l.bytes += l.size(v)
	}
	for len(l.entries) > l.max || l.size != nil && l.bytes > l.maxBytes && len(l.entries) > 1 {
		if l.size != nil {
			l.bytes -= l.size(l.entries[0])
		}
		l.entries = l.entries[1:] // readers may have the rest; append copies it to a new array from time to time
	}
	l.last++
	l.wake()
}

// Continue makes a Log without entries go on behind the cursor of another that has ended.
func (l *Log[T]) Continue(last uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = last
}

// Close says that no entry will follow. What is kept can still be read.
func (l *Log[T]) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.wake()
}

// Last returns the cursor of the newest entry.
func (l *Log[T]) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// An Entry is one entry as a reader gets it.
type Entry[T any] struct {
	Value  T
	Cursor uint64 // of this entry: 1 for the first, then 2, 3, …
	Lost   uint64 // entries between the reader's cursor and this one that are no longer kept
}

// Kept returns the entries after the cursor that are kept, at most n, and does not wait. A cursor
// that is beyond the newest is of another Log, and counts as 0.
func (l *Log[T]) Kept(cursor uint64, n int) []Entry[T] {
	l.mu.Lock()
	values, first := l.afterLocked(cursor)
	l.mu.Unlock()
	entries := make([]Entry[T], min(n, len(values)))
	for i := range entries { // without the lock, for which Put waits
		entries[i] = Entry[T]{Value: values[i], Cursor: first.Cursor + uint64(i)}
	}
	if len(entries) > 0 {
		entries[0].Lost = first.Lost
	}
	return entries
}

// Next returns the first entry that Kept returns. It waits until there is one, or returns ctx's
// error, or ErrClosed.
func (l *Log[T]) Next(ctx context.Context, cursor uint64) (Entry[T], error) {
	for {
		l.mu.Lock()
		values, e := l.afterLocked(cursor)
		closed := l.closed
		if len(values) == 0 && !closed && l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed := l.changed
		l.mu.Unlock()
		switch {
		case len(values) > 0:
			e.Value = values[0]
			return e, nil
		case closed:
			return e, ErrClosed
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return e, ctx.Err()
		}
	}
}

// afterLocked returns the entries after the cursor that are kept, and the first of them without its
// value.
func (l *Log[T]) afterLocked(cursor uint64) (values []T, first Entry[T]) {
	if cursor > l.last {
		cursor = 0
	}
	oldest := l.last - uint64(len(l.entries)) + 1
	at := max(cursor+1, oldest)
	if at > l.last {
		return nil, first
	}
	return l.entries[at-oldest:], Entry[T]{Cursor: at, Lost: at - cursor - 1}
}

// wake wakes the readers that wait.
func (l *Log[T]) wake() {
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
}
