package dispatch

import "golang.org/x/sys/unix"

// turnAway answers a connection and closes it, at once or a little later. It does not block: a
// client that cannot receive the answer does not get it.
func (a *acceptedConn) turnAway(answer string, q *lingerQueue) {
	if answer == "" {
		_ = a.h.Close()
		return
	}
	_, _ = unix.SendmsgN(a.fd, []byte(answer), nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	_ = unix.Shutdown(a.fd, unix.SHUT_WR)
	if discard(a.fd) {
		_ = a.h.Close() // the client is done too
		return
	}
	q.add(a.h, a.fd)
}

// resetOnClose makes the close of a TCP connection send a reset.
func resetOnClose(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// finish closes a connection that was answered.
func (c lingeringConn) finish() {
	discard(c.fd)
	_ = c.h.Close()
}

// discard reads and drops what the client has sent so far. It returns true if nothing more can
// come.
func discard(fd int) (ended bool) {
	var b [4096]byte
	for range 16 { // a client that sends without end is reset
		n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_DONTWAIT)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return false
		case err != nil || n == 0:
			return true
		}
	}
	return false
}
