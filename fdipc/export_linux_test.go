package fdipc

// Fd is the descriptor, for tests.
func (s *Socket) Fd() int { return s.fd }
