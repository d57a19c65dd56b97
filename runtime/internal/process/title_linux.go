package process

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// title is the memory that the command line of this process is read from, once it has a title.
var title struct {
	sync.Mutex
	page []byte
}

// SetTitle replaces the command line that ps, top and /proc/PID/cmdline show for this process. It
// needs no rights, but a kernel with CONFIG_CHECKPOINT_RESTORE; otherwise the command line stays.
//
// The strings of os.Args and the values of flags lie in the memory of the command line, so it
// cannot be written over, as programs in C do. SetTitle has the kernel read it elsewhere
// (PR_SET_MM_MAP of prctl(2)). os.Args, and the name of the process (comm), stay as they are.
func SetTitle(text string) error {
	title.Lock()
	defer title.Unlock()
	if title.page == nil {
		page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return os.NewSyscallError("mmap", err)
		}
		title.page = page
	}
	n := copy(title.page[:len(title.page)-1], text)
	clear(title.page[n:])
	return readArgsFrom(title.page[:n+1])
}

// memoryMap is struct prctl_mm_map of linux/prctl.h.
type memoryMap struct {
	startCode, endCode, startData, endData, startBrk, brk, startStack uint64

	argStart, argEnd, envStart, envEnd uint64

	auxv     *uint64 // nil: stays
	auxvSize uint32
	exe      uint32
}

// readArgsFrom makes the kernel read the command line from args, which stays there for ever. The
// kernel takes all addresses at once, so the others are read before. C code that moves the end of
// the heap (brk(2)) in between finds that it cannot grow there any more, and takes memory
// elsewhere.
func readArgsFrom(args []byte) error {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return err
	}
	// The name in parentheses, the second field, may hold anything (proc_pid_stat(5)).
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 49 {
		return errors.New("process: /proc/self/stat has too few fields")
	}
	field := func(n int) uint64 {
		v, _ := strconv.ParseUint(string(f[n-3]), 10, 64)
		return v
	}
	at := uint64(uintptr(unsafe.Pointer(&args[0])))
	brk, _, _ := unix.RawSyscall(unix.SYS_BRK, 0, 0, 0) // returns the present end
	m := memoryMap{
		startCode: field(26), endCode: field(27), startData: field(45), endData: field(46),
		startBrk: field(47), brk: uint64(brk), startStack: field(28),
		argStart: at, argEnd: at + uint64(len(args)), envStart: field(50), envEnd: field(51),
		exe: ^uint32(0), // stays
	}
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_MM, unix.PR_SET_MM_MAP, uintptr(unsafe.Pointer(&m)), unsafe.Sizeof(m), 0))
}
