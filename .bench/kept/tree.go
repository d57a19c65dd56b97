//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/supervisor"
)

// tree is the server.
type tree struct {
	*coppice.Runtime
	book    *book
	failing int // slot whose worker fails in the next generation; -1: none

	mu     sync.Mutex
	took   []float64 // the drains, in milliseconds
	forced int
}

// startTree starts the tree. In a process of the tree it does not return.
func startTree(b *book) (t *tree, err error) {
	t = &tree{book: b, failing: -1}
	t.Runtime, err = coppice.Start(context.Background(), coppice.Config{
		Logger: slog.New(slog.DiscardHandler), // each failure that is asked for is an error to it
		Load:   func(context.Context) ([]byte, error) { return strconv.AppendInt(nil, int64(t.failing), 10), nil },
		Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "http", Network: "tcp", Address: "127.0.0.1:0", Park: *park},
			coppice.Pool{
				Name: "web", Size: *workers, Worker: b.serve,
				Intensity: supervisor.Intensity{Max: 1 << 20, Period: time.Second},
			},
		},
	})
	if err != nil {
		return nil, err
	}
	events := t.Events(coppice.FromNow)
	go func() { // ends with the tree
		for e := range events.All(context.Background()) {
			if e.Kind == coppice.WorkerDrained && e.Path == "web" {
				t.mu.Lock()
				t.took, t.forced = append(t.took, float64(e.Took)/1e6), t.forced+e.Forced
				t.mu.Unlock()
			}
		}
	}()
	return t, nil
}

// serve is the worker.
func (b *book) serve(ctx context.Context, w *coppice.Worker) error {
	if string(w.Config()) == strconv.Itoa(w.Slot()) {
		return errors.New("a generation that fails")
	}
	ln, err := w.Listener(ctx, "http")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(rw http.ResponseWriter, _ *http.Request) { echo(ctx, rw) })
	mux.HandleFunc("/{id}/{ms}", func(rw http.ResponseWriter, r *http.Request) {
		id, _ := strconv.Atoi(r.PathValue("id"))
		ms, _ := strconv.Atoi(r.PathValue("ms"))
		b.executed[id].Add(1)
		b.slots[w.Slot()].Add(1)
		n, _ := io.Copy(io.Discard, r.Body)
		time.Sleep(time.Duration(ms) * time.Millisecond)
		rw.Header().Set("X-Request", r.PathValue("id"))
		fmt.Fprintf(rw, "%d\n", n)
	})
	return w.Serve(ctx, ln, &http.Server{Handler: mux, ReadHeaderTimeout: 30 * time.Second})
}

// echo takes the connection over, and writes each line back until the worker drains.
func echo(ctx context.Context, rw http.ResponseWriter) {
	c, buf, err := rw.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Now()) })()
	_, err = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	for lines := bufio.NewScanner(buf); err == nil && lines.Scan(); {
		_, err = fmt.Fprintln(c, lines.Text())
	}
}

// book has the requests that were executed, in memory that all processes share.
type book struct {
	slots    *[64]atomic.Uint64
	executed []atomic.Uint32 // by the number of the request
}

const (
	maxRequests = 1 << 23
	bookVar     = "KEPT_BOOK"
)

// openBook makes the book in the first process and opens it in the others.
func openBook() (*book, error) {
	path := os.Getenv(bookVar)
	if path == "" {
		fd, err := unix.MemfdCreate("kept", unix.MFD_CLOEXEC)
		if err != nil {
			return nil, os.NewSyscallError("memfd_create", err)
		}
		path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)
		if err := os.Setenv(bookVar, path); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const size = 64*8 + maxRequests*4
	if err := f.Truncate(size); err != nil {
		return nil, err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return &book{
		slots:    (*[64]atomic.Uint64)(unsafe.Pointer(&m[0])),
		executed: unsafe.Slice((*atomic.Uint32)(unsafe.Pointer(&m[64*8])), maxRequests),
	}, nil
}

// shares returns how many requests the worker of each slot has had so far.
func (b *book) shares() (n [64]uint64) {
	for i := range n {
		n[i] = b.slots[i].Load()
	}
	return n
}

// twice returns how many requests were executed more than once.
func (b *book) twice() (n int) {
	for i := range b.executed {
		if b.executed[i].Load() > 1 {
			n++
		}
	}
	return n
}
