package peers

import (
	"encoding/binary"
	"io"
	"net"
	"os"
)

// Pool is the least that a pool of processes can be: a caller takes a free worker, writes the input
// to its socket and reads the answer. start starts a worker, [PoolWorker], with its socket.
func Pool(workers int, start func(remote *os.File) error) (call func(b []byte) (int64, error), err error) {
	free := make(chan *net.UnixConn, workers)
	for range workers {
		c, remote, err := Pair()
		if err != nil {
			return nil, err
		}
		if err := start(remote); err != nil {
			return nil, err
		}
		free <- c
	}
	return func(b []byte) (int64, error) {
		c := <-free
		var head, answer [8]byte
		binary.LittleEndian.PutUint64(head[:], uint64(len(b)))
		if _, err := (&net.Buffers{head[:], b}).WriteTo(c); err != nil {
			return 0, err
		}
		_, err := io.ReadFull(c, answer[:])
		free <- c
		return int64(binary.LittleEndian.Uint64(answer[:])), err
	}, nil
}

// poolWorker answers each input with [SumPages], until the other end is closed.
func poolWorker(c *net.UnixConn) error {
	b := make([]byte, 64<<10)
	for {
		n, err := c.Read(b)
		if err != nil {
			return nil
		}
		size := 8 + int(binary.LittleEndian.Uint64(b))
		if size > len(b) {
			b = append(b[:n], make([]byte, size-n)...)
		}
		if _, err := io.ReadFull(c, b[n:max(n, size)]); err != nil {
			return err
		}
		var answer [8]byte
		binary.LittleEndian.PutUint64(answer[:], uint64(SumPages(b[8:size])))
		if _, err := c.Write(answer[:]); err != nil {
			return err
		}
	}
}
