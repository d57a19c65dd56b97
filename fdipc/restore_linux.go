package fdipc

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// adoptFiles makes the Conn's endpoints and tables of the first of fds, in the order of connState.
// On an error it closes all of fds.
func (c *Conn) adoptFiles(fds []int, s *connState) (err error) {
	left := fds
	next := func() int {
		fd := left[0]
		left = left[1:]
		return fd
	}
	defer func() {
		if err != nil {
			for _, e := range c.endpoints {
				e.close()
			}
			c.standIn.close()
			c.peerTable.close()
			closeFDs(left)
		}
	}()
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	control, err := restoredEnd(next())
	if err != nil {
		return err
	}
	c.setControl(control)
	fd := next()
	if err := unix.SetNonblock(fd, false); err != nil { // see newSendEnd
		unix.Close(fd)
		return os.NewSyscallError("fcntl", err)
	}
	data, err := newSendEnd(fd)
	if err != nil {
		return err
	}
	c.dataOut = data
	c.addEndpoint(data)
	c.standIn.fd = next()
	if c.table, err = openTable(c.standIn.fd); err != nil || !s.Ready {
		return err
	}
	peer, err := restoredEnd(next())
	if err != nil {
		return err
	}
	c.setData(peer)
	c.peerTable.fd = next()
	if c.peer, err = openTable(c.peerTable.fd); err != nil {
		return err
	}
	if n := c.table.Slots(); len(s.Seqs) > n {
		return fmt.Errorf("%w: Seqs is %d, and the claim table has %d slots", ErrState, len(s.Seqs), n)
	}
	for i := range s.Lanes {
		if t := s.Lanes[i].Part; t != nil {
			for j := range t.Handles {
				if slot := t.Handles[j].Slot; int(slot) >= c.peer.Slots() {
					return fmt.Errorf("%w: Lanes.%v.Part.Handles.%d.Slot is %d, of %d", ErrState, Lane(i), j, slot, c.peer.Slots())
				}
			}
		}
	}
	return nil
}

func restoredEnd(fd int) (endpoint, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return newSocketEnd(os.NewFile(uintptr(fd), "fdipc"))
}

func (s *socketEnd) fd() (n int) {
	_ = s.rc.Control(func(fd uintptr) { n = int(fd) })
	return n
}

func (s *socketEnd) gone() bool { return s.draining.Load() }
