package fdipc

import (
	"fmt"
	"slices"

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
			closeFDs(append([]int{c.standIn.fd, c.peerTable.fd}, left...))
		}
	}()
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	control, err := new(socketEnd).adopt(attachment{fd: next()})
	if err != nil {
		return err
	}
	c.setControl(control)
	fd := next()
	_ = unix.SetNonblock(fd, false) // newSendEnd fails if this does
	if c.dataOut, err = newSendEnd(fd); err != nil {
		return err
	}
	c.addEndpoint(c.dataOut)
	c.standIn.fd = next()
	if c.table, err = openTable(c.standIn.fd); err != nil || !s.Ready {
		return err
	}
	if n := c.table.Slots(); len(s.Seqs) > n {
		return fmt.Errorf("%w: Seqs is %d, and the claim table has %d slots", ErrState, len(s.Seqs), n)
	}
	peer, err := new(socketEnd).adopt(attachment{fd: next()})
	if err != nil {
		return err
	}
	c.setData(peer)
	c.peerTable.fd = next()
	if c.peer, err = openTable(c.peerTable.fd); err != nil {
		return err
	}
	for i := range s.Lanes {
		if t := s.Lanes[i].Part; t != nil && slices.ContainsFunc(t.Handles, func(h handleState) bool { return int(h.Slot) >= c.peer.Slots() }) {
			return fmt.Errorf("%w: Lanes.%v.Part.Handles has a slot beyond %d", ErrState, Lane(i), c.peer.Slots())
		}
	}
	return nil
}

func (s *socketEnd) fd() (n int) {
	_ = s.rc.Control(func(fd uintptr) { n = int(fd) })
	return n
}

func (s *socketEnd) gone() bool { return s.draining.Load() }
