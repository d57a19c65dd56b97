package coppice

import (
	"os"
	"runtime/debug"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOwnMemory: what counts as a process's own memory, and what does not.
func TestOwnMemory(t *testing.T) {
	const size, noise = 24 << 20, 8 << 20
	own := func() int64 {
		t.Helper()
		n, ok := ownMemory(os.Getpid(), 0) // exact
		if !ok {
			t.Fatal("not known")
		}
		return n
	}
	memory := func(fd, flags int) []byte {
		t.Helper()
		b, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, flags)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Munmap(b) })
		for i := 0; i < size; i += 4096 {
			b[i]++
		}
		return b
	}
	shared := func() int {
		fd, err := unix.MemfdCreate("shared", 0)
		if err == nil {
			err = unix.Ftruncate(fd, size)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}()
	file, err := os.Create(t.TempDir() + "/file")
	if err == nil {
		defer file.Close()
		err = file.Truncate(size)
	}
	if err != nil {
		t.Fatal(err)
	}
	var fs syscall.Statfs_t
	if err := syscall.Fstatfs(int(file.Fd()), &fs); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		grow func()
		want int64
	}{
		{"anonymous memory", func() { memory(-1, unix.MAP_PRIVATE|unix.MAP_ANON) }, size},
		{"a file", func() { memory(int(file.Fd()), unix.MAP_SHARED) }, 0},
		{"shared memory", func() { memory(shared, unix.MAP_SHARED) }, size},
		{"the same, mapped again", func() { memory(shared, unix.MAP_SHARED) }, 0},
	} {
		if tt.name == "a file" && fs.Type == unix.TMPFS_MAGIC {
			continue // it is memory
		}
		debug.FreeOSMemory() // else what other tests have left goes while this one measures
		before := own()
		tt.grow()
		if got := own() - before; got < tt.want-noise || got > tt.want+noise {
			t.Errorf("%s: %d MiB more, want %d", tt.name, got>>20, tt.want>>20)
		}
	}
	if n, _ := ownMemory(os.Getpid(), 1<<50); n < own()-noise {
		t.Errorf("below its limit it has %d MiB, of %d: a sum must not be too small", n>>20, own()>>20)
	}
}
