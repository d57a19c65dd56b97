package shm

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

const countersSeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// NewSharedCounters makes a page of counters, and a handle for it to send to the listener process.
func NewSharedCounters() (*SharedCounters, *fdipc.Handle, error) {
	fd, err := fdipc.Memory("coppice-counts")
	if err != nil {
		return nil, nil, err
	}
	if err = unix.Ftruncate(fd, CountersBytes); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, countersSeals)
	}
	var c *SharedCounters
	if err == nil {
		c, err = mapSharedCounters(fd, unix.PROT_READ|unix.PROT_WRITE)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, nil, os.NewSyscallError("memfd", err)
	}
	c.Words[0].Store(countersMagic)
	return c, fdipc.HandleFD(fd), nil
}

// OpenSharedCounters maps a page of counters that a worker made. It requires seals that fix the
// page's size: otherwise a worker could truncate the page and kill this process with SIGBUS. It
// consumes the handle.
func OpenSharedCounters(h *fdipc.Handle) (*SharedCounters, error) {
	if k := h.Kind(); k != fdipc.HandleMemfd {
		_ = h.Close()
		return nil, fmt.Errorf("netactor: counts in a descriptor of kind %v", k)
	}
	f, err := h.File()
	if err != nil {
		_ = h.Close()
		return nil, err
	}
	defer f.Close()
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var c *SharedCounters
	if cerr := rc.Control(func(fd uintptr) {
		var st unix.Stat_t
		seals, serr := unix.FcntlInt(fd, unix.F_GET_SEALS, 0)
		if serr != nil || seals&countersSeals != countersSeals || unix.Fstat(int(fd), &st) != nil || st.Size != CountersBytes {
			err = errors.New("netactor: counts are not a sealed page")
			return
		}
		c, err = mapSharedCounters(int(fd), unix.PROT_READ)
	}); cerr != nil {
		return nil, cerr
	}
	if err == nil && c.Words[0].Load() != countersMagic {
		err = errors.New("netactor: counts without their magic")
	}
	return c, err
}

// mapSharedCounters maps a page of counters; it is unmapped when the SharedCounters is no longer
// reachable.
func mapSharedCounters(fd, prot int) (*SharedCounters, error) {
	b, err := unix.Mmap(fd, 0, CountersBytes, prot, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	c := CountersAt(b)
	runtime.AddCleanup(c, func(b []byte) { _ = unix.Munmap(b) }, b)
	return c, nil
}
