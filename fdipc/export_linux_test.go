package fdipc

import "github.com/coppice-go/coppice/fdipc/internal/lazyconn"

// Fd is the descriptor, for tests.
func (s *Socket) Fd() int { return lazyconn.FD(&s.lazyConn) }

// ClaimTable returns the descriptor of a claim table, owned by the caller.
func ClaimTable() (int, error) {
	_, a, err := new(socketEnd).newTable(8)
	return a.fd, err
}
