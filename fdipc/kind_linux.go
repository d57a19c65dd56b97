package fdipc

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// detectKind asks the kernel what fd is. It asks no file system, for the peer may run the one that
// the file is on.
func detectKind(fd int) HandleKind {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err == nil {
		return socketKind(fd, domain)
	}
	link, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	_, sealErr := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	switch {
	case strings.HasPrefix(link, "/memfd:") && sealErr == nil: // the name alone could be any file's
		return HandleMemfd
	case link == "anon_inode:[eventfd]":
		return HandleEventfd
	case link == "anon_inode:[pidfd]" || strings.HasPrefix(link, "pidfd:["): // the latter since Linux 6.9
		return HandlePidfd
	case strings.HasPrefix(link, "anon_inode:"): // since Linux 6.17 these count as regular files
		return HandleOther
	}
	switch fileType(fd) {
	case unix.S_IFIFO:
		return HandlePipe
	case unix.S_IFREG, unix.S_IFDIR:
		return HandleFile
	}
	return HandleOther
}

// fileType is the type as in st_mode, or 0. It is the one that the kernel knows.
func fileType(fd int) uint32 {
	var x unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &x)
	if err == nil {
		return uint32(x.Mode) & unix.S_IFMT
	}
	var st unix.Stat_t // a filter refuses statx: this may wait
	_ = unix.Fstat(fd, &st)
	return st.Mode & unix.S_IFMT
}

func socketKind(fd, domain int) HandleKind {
	typ, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	kinds := [...]struct {
		domain, typ  int
		conn, listen HandleKind
	}{
		{unix.AF_INET, unix.SOCK_STREAM, HandleTCP, HandleTCPListener},
		{unix.AF_INET6, unix.SOCK_STREAM, HandleTCP, HandleTCPListener},
		{unix.AF_INET, unix.SOCK_DGRAM, HandleUDP, HandleUDP},
		{unix.AF_INET6, unix.SOCK_DGRAM, HandleUDP, HandleUDP},
		{unix.AF_UNIX, unix.SOCK_STREAM, HandleUnix, HandleUnixListener},
		{unix.AF_UNIX, unix.SOCK_SEQPACKET, HandleUnixPacket, HandleUnixPacketListener},
		{unix.AF_UNIX, unix.SOCK_DGRAM, HandleUnixgram, HandleUnixgram},
	}
	for _, k := range kinds {
		if k.domain == domain && k.typ == typ {
			if k.conn != k.listen {
				if on, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); on != 0 {
					return k.listen
				}
			}
			return k.conn
		}
	}
	return HandleOther
}
