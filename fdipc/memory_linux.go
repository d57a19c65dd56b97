package fdipc

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Memory returns the descriptor of an empty file in memory (memfd_create(2)), close-on-exec,
// that can be sealed, and never run where the kernel has a seal for that. It is the caller's.
// name is for people.
func Memory(name string) (int, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	// Where vm.memfd_noexec is 2 a file that could be run is refused; before Linux 6.3 the flag is.
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_NOEXEC_SEAL)
	if err != nil {
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return -1, refused("memfd_create", err, "processes share memory by it: a seccomp profile must allow it")
	}
	return fd, nil
}

// refused returns the error of a call that cannot be done without. Unless the system is short of
// something, the error says what helps.
func refused(call string, err error, remedy string) error {
	named := os.NewSyscallError(call, err)
	for _, short := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.EAGAIN} {
		if errors.Is(err, short) {
			return named
		}
	}
	return fmt.Errorf("%w: %s", named, remedy)
}

// needsUnix helps where there are no Unix sockets.
const needsUnix = "processes talk by Unix sockets: what this program runs under (RestrictAddressFamilies= of systemd, a seccomp profile) must allow AF_UNIX"
