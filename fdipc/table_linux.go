package fdipc

import (
	"os"
	"runtime"
	"unsafe"

	"github.com/coppice-go/coppice/fdipc/internal/claims"
	"golang.org/x/sys/unix"
)

const tableSeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

func (s *socketEnd) newTable(slots int) (*claims.Table, attachment, error) {
	size := claims.Len(slots) * 8
	fd, err := Memory("fdipc-claims")
	if err != nil {
		return nil, noAttachment, err
	}
	if err = unix.Ftruncate(fd, int64(size)); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, tableSeals)
	}
	if err != nil {
		unix.Close(fd)
		return nil, noAttachment, os.NewSyscallError("memfd", err)
	}
	m, err := mapTable(fd, size)
	if err != nil {
		unix.Close(fd)
		return nil, noAttachment, err
	}
	t := claims.New(m)
	ownTable(t, m)
	return t, attachment{fd: fd}, nil
}

func (s *socketEnd) adoptTable(g attachment) (*claims.Table, error) {
	t, err := openTable(g.fd)
	if err == nil && !t.Magic() {
		return nil, wireError("claim table without its magic")
	}
	return t, err
}

// openTable maps a table that is there. Its size cannot change any more: without that a peer could
// cut it off and kill us with SIGBUS.
func openTable(fd int) (*claims.Table, error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil || seals&tableSeals != tableSeals {
		return nil, wireError("claim table is not a sealed memfd")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if !claims.Valid(st.Size, maxCredits) {
		return nil, wireError("claim table of %d bytes", st.Size)
	}
	m, err := mapTable(fd, int(st.Size))
	if err != nil {
		return nil, err
	}
	t := claims.At(m)
	ownTable(t, m)
	return t, nil
}

func mapTable(fd, size int) ([]uint64, error) {
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return unsafe.Slice((*uint64)(unsafe.Pointer(&b[0])), size/8), nil
}

// ownTable unmaps m when nothing refers to t any more. Handles do, and may outlive their Conn.
func ownTable(t *claims.Table, m []uint64) {
	b := unsafe.Slice((*byte)(unsafe.Pointer(&m[0])), len(m)*8)
	runtime.AddCleanup(t, func(b []byte) { _ = unix.Munmap(b) }, b)
}
