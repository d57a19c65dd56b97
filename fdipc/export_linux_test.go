package fdipc

import "github.com/coppice-go/coppice/fdipc/internal/lazyconn"

// Fd is the descriptor, for tests, which lend it.
func (s *Socket) Fd() int {
	fd, _ := lazyconn.Lend(&s.lazyConn)
	return fd
}

// ClaimTable returns the descriptor of a claim table, owned by the caller.
func ClaimTable() (int, error) {
	_, a, err := new(socketEnd).newTable(8)
	return a.fd, err
}
