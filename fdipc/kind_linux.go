package fdipc

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// detectKind asks the kernel what fd is.
func detectKind(fd int) HandleKind {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err == nil {
		return socketKind(fd, domain)
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
		return HandlePipe
	}
	link, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	switch {
	case strings.HasPrefix(link, "/memfd:"):
		return HandleMemfd
	case link == "anon_inode:[eventfd]":
		return HandleEventfd
	case link == "anon_inode:[pidfd]" || strings.HasPrefix(link, "pidfd:["): // the latter since Linux 6.9
		return HandlePidfd
	case strings.HasPrefix(link, "anon_inode:"): // since Linux 6.17 these count as regular files
		return HandleOther
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
		return HandleFile
	}
	return HandleOther
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
