package otlp

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// newTable makes a table, and returns it mapped and as a file for the child. Both are owned
// by the caller. Its size is sealed (fcntl(2), F_ADD_SEALS): a child that shrank it would kill
// its master by SIGBUS.
func newTable() (tableMemory, *os.File, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	// With vm.memfd_noexec = 2 executable memfds are refused; before Linux 6.3 the flag is.
	fd, err := unix.MemfdCreate("coppice-spans", flags|unix.MFD_NOEXEC_SEAL)
	if err != nil {
		fd, err = unix.MemfdCreate("coppice-spans", flags)
	}
	if err != nil {
		return nil, nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "coppice-spans")
	err = os.NewSyscallError("ftruncate", unix.Ftruncate(fd, tableSize))
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
		err = os.NewSyscallError("fcntl", err)
	}
	var mem tableMemory
	if err == nil {
		mem, err = mapTable(f)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	mem.word64(0).Store(tableMagic)
	return mem, f, nil
}

// openTable maps the table that the master has given to this process. It takes ownership of f.
func openTable(f *os.File) (tableMemory, error) {
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() != tableSize {
		return nil, fmt.Errorf("tracing/otlp: a table of %d bytes, want %d", info.Size(), tableSize)
	}
	mem, err := mapTable(f)
	if err != nil {
		return nil, err
	}
	if mem.word64(0).Load() != tableMagic {
		mem.unmap()
		return nil, fmt.Errorf("tracing/otlp: not a table of this release")
	}
	return mem, nil
}

func mapTable(f *os.File) (mem tableMemory, err error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var mapErr error
	if err := rc.Control(func(fd uintptr) {
		mem, mapErr = unix.Mmap(int(fd), 0, tableSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}); err != nil {
		return nil, err
	}
	return mem, os.NewSyscallError("mmap", mapErr)
}

// unmap unmaps the table.
func (m tableMemory) unmap() { _ = unix.Munmap(m) }
