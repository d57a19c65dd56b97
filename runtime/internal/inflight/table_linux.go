package inflight

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

// New makes the table of a worker to be, and the file by which the worker opens it, both owned by
// the caller. The file cannot be made shorter: the worker could kill the master by that (SIGBUS).
func New() (*Table, *os.File, error) {
	fd, err := fdipc.Memory("coppice-requests")
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fd), "coppice-requests")
	var t *Table
	if err = f.Truncate(size); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err == nil {
		t, err = Open(f)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("coppice: the table of requests: %w", err), f.Close())
	}
	return t, f, nil
}

// Open opens the table in a file of New's. The caller keeps f.
func Open(f *os.File) (*Table, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	t := &Table{mem: mem}
	t.clock, t.began, err = bothClocks(time.Now, func() (time.Duration, error) {
		var now unix.Timespec
		err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
		return time.Duration(now.Nano()), os.NewSyscallError("clock_gettime", err)
	})
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(mem))
	}
	return t, nil
}

// Close releases the memory of the table, which must not be used any more.
func (t *Table) Close() { _ = unix.Munmap(t.mem) } // it is mapped
