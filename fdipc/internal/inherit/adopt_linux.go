package inherit

import "syscall"

// adopt makes fd ours, or says why it is not a channel.
func adopt(fd int) (why string) {
	typ, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
	if err != nil {
		return err.Error()
	}
	syscall.CloseOnExec(fd)
	domain, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_DOMAIN)
	if err != nil || domain != syscall.AF_UNIX || typ != syscall.SOCK_SEQPACKET {
		return "not a Unix socket of type SOCK_SEQPACKET"
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		return err.Error()
	}
	return ""
}
