package process

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The variable that names the process for which descriptors are meant (sd_listen_fds(3)), and the
// room for its value: no number of a process is longer.
const (
	listenPID = "LISTEN_PID="
	pidRoom   = "0000000000"
)

// environ returns the environment for the exec. LISTEN_PID stands first there, where setListenPID
// finds it.
func (cmd *Command) environ() []string {
	if !cmd.ListenPID {
		return cmd.Env
	}
	env := slices.DeleteFunc(slices.Clone(cmd.Env), func(kv string) bool { return strings.HasPrefix(kv, listenPID) })
	return slices.Insert(env, 0, listenPID+pidRoom)
}

// setListenPID writes the number of a process, which is known only after the fork, into the first
// of its variables. The process is stopped at its exec: its stack pointer points at argc, behind
// which are the pointers to the arguments, nil, and the pointers to the variables (execve(2)).
func setListenPID(pid int) error {
	var regs unix.PtraceRegs
	iov := unix.Iovec{Base: (*byte)(unsafe.Pointer(&regs))}
	iov.SetLen(int(unsafe.Sizeof(regs)))
	const general = 1 // NT_PRSTATUS
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GETREGSET, uintptr(pid), general, uintptr(unsafe.Pointer(&iov)), 0, 0); errno != 0 {
		return os.NewSyscallError("ptrace", errno)
	}
	stack, ok := stackPointer(&regs)
	if !ok {
		return fmt.Errorf("the stack pointer on this architecture: %w", errors.ErrUnsupported)
	}
	const word = unsafe.Sizeof(stack)
	peek := func(at uintptr, to []byte) error {
		_, err := unix.PtracePeekData(pid, at, to)
		return os.NewSyscallError("ptrace", err)
	}
	var b [word]byte
	read := func() uintptr { // of a word, which has 8 bytes where the stack pointer is known
		return uintptr(binary.NativeEndian.Uint64(append(b[:], make([]byte, 8-word)...)))
	}
	if err := peek(stack, b[:]); err != nil {
		return err
	}
	if err := peek(stack+(read()+2)*word, b[:]); err != nil {
		return err
	}
	at := read()
	found := make([]byte, len(listenPID+pidRoom))
	if err := peek(at, found); err != nil {
		return err
	}
	if string(found) != listenPID+pidRoom {
		return fmt.Errorf("its variables are not where they should be: is it a program for another word size? %w", errors.ErrUnsupported)
	}
	value := []byte(strconv.Itoa(pid)) // a zero would make it octal for strtoul
	value = append(value, bytes.Repeat([]byte{0}, len(pidRoom)-len(value))...)
	_, err := unix.PtracePokeData(pid, at+uintptr(len(listenPID)), value)
	return os.NewSyscallError("ptrace", err)
}

// stackPointer returns the stack pointer, which has a field of its own on most architectures.
func stackPointer(regs *unix.PtraceRegs) (uintptr, bool) {
	for _, name := range []string{"Rsp", "Sp", "Esp"} {
		if f := reflect.ValueOf(*regs).FieldByName(name); f.IsValid() && f.CanUint() {
			return uintptr(f.Uint()), true
		}
	}
	return 0, false
}
