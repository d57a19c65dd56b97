package coppice

import (
	"io"
	"sync"
)

// tagged writes whole lines of several processes to one stream, each behind its
// writer's tag. Safe for concurrent use.
type tagged struct {
	mu  sync.Mutex
	dst io.Writer
	buf []byte
}

// line writes "tag| text\n" in one Write. A stream that cannot be written to
// costs the line: output is not worth a worker's life.
func (t *tagged) line(tag string, text []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(append(t.buf[:0], tag...), "| "...)
	t.buf = append(append(t.buf, text...), '\n')
	_, _ = t.dst.Write(t.buf)
}
