package netactor

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

const sheetSeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// newSheet makes a sheet, and a handle on it for the listener process.
func newSheet() (*sheet, *fdipc.Handle, error) {
	fd, err := fdipc.Memory("coppice-counts")
	if err != nil {
		return nil, nil, err
	}
	if err = unix.Ftruncate(fd, sheetBytes); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, sheetSeals)
	}
	var s *sheet
	if err == nil {
		s, err = mapSheet(fd, unix.PROT_READ|unix.PROT_WRITE)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, nil, os.NewSyscallError("memfd", err)
	}
	s.words[0].Store(sheetMagic)
	return s, fdipc.HandleFD(fd), nil
}

// openSheet maps a sheet that a worker made. Its size cannot change any more: without that a
// worker could cut it off and kill us with SIGBUS. The handle is consumed.
func openSheet(h *fdipc.Handle) (*sheet, error) {
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
	var s *sheet
	if cerr := rc.Control(func(fd uintptr) {
		var st unix.Stat_t
		seals, serr := unix.FcntlInt(fd, unix.F_GET_SEALS, 0)
		if serr != nil || seals&sheetSeals != sheetSeals || unix.Fstat(int(fd), &st) != nil || st.Size != sheetBytes {
			err = errors.New("netactor: counts are not a sealed page")
			return
		}
		s, err = mapSheet(int(fd), unix.PROT_READ)
	}); cerr != nil {
		return nil, cerr
	}
	if err == nil && s.words[0].Load() != sheetMagic {
		err = errors.New("netactor: counts without their magic")
	}
	return s, err
}

// mapSheet maps a sheet; it is unmapped when nothing refers to it any more.
func mapSheet(fd, prot int) (*sheet, error) {
	b, err := unix.Mmap(fd, 0, sheetBytes, prot, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	s := sheetAt(b)
	runtime.AddCleanup(s, func(b []byte) { _ = unix.Munmap(b) }, b)
	return s, nil
}
