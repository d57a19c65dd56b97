package notify

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// maxDatagram bounds one datagram; a longer one is cut.
const maxDatagram = 4 << 10

// A Sender is the process that sent a message, as the kernel reports it.
type Sender struct{ PID, UID int }

// Socket receives the messages of one program.
type Socket struct {
	conn *net.UnixConn
	buf  [maxDatagram]byte
	oob  []byte // room for the sender's credentials only, so that the kernel drops descriptors that come with them (unix(7), MSG_CTRUNC)
}

// Listen opens a socket. The caller owns it.
func Listen() (*Socket, error) {
	name := fmt.Sprintf("@coppice/%d/%s", os.Getpid(), rand.Text())
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	rc, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	var serr error
	if err := rc.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	}); err != nil || serr != nil {
		return nil, errors.Join(err, os.NewSyscallError("setsockopt", serr), conn.Close())
	}
	return &Socket{conn: conn, oob: make([]byte, unix.CmsgSpace(unix.SizeofUcred))}, nil
}

// Environ returns the variable by which a program finds the socket, "KEY=value".
func (s *Socket) Environ() string { return "NOTIFY_SOCKET=" + s.conn.LocalAddr().String() }

// Receive waits for the next message and returns it with its sender. Only one goroutine may call
// it. After Close the error is net.ErrClosed; at deadline, if that is not zero, it is
// os.ErrDeadlineExceeded.
func (s *Socket) Receive(deadline time.Time) (Message, Sender, error) {
	if err := s.conn.SetReadDeadline(deadline); err != nil {
		return Message{}, Sender{}, err
	}
	for {
		n, oobn, _, _, err := s.conn.ReadMsgUnix(s.buf[:], s.oob)
		if err != nil {
			return Message{}, Sender{}, err
		}
		if from, ok := sender(s.oob[:oobn]); ok {
			return Parse(string(s.buf[:n])), from, nil
		}
	}
}

func sender(oob []byte) (Sender, bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return Sender{}, false
	}
	for i := range messages {
		if cred, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			return Sender{int(cred.Pid), int(cred.Uid)}, true
		}
	}
	return Sender{}, false
}

// Close ends a Receive that waits.
func (s *Socket) Close() error { return s.conn.Close() }
