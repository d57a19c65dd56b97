package fdipc

import "net"

func (h *Handle) netConn() (net.Conn, error) {
	f, done, err := h.asFile()
	if err != nil {
		return nil, err
	}
	c, err := net.FileConn(f)
	return c, done(err)
}
