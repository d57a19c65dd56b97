package peers

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Pair makes a Unix stream socket pair, as plain Go programs use it. remote is for a child.
func Pair() (local *net.UnixConn, remote *os.File, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	c, err := conn(os.NewFile(uintptr(p[0]), "peer"))
	return c, os.NewFile(uintptr(p[1]), "peer"), err
}

func conn(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// Child is the other process of a pair: "stream" reads length-prefixed messages and says how many
// when they end, "pingpong" sends back what it reads, "pool" is a worker of [Pool], "handles"
// closes the descriptors it gets.
func Child(what string, f *os.File) error {
	if what == "handles" {
		return takeHandles(f)
	}
	c, err := conn(f)
	if err != nil {
		return err
	}
	if what == "pool" {
		return poolWorker(c)
	}
	if what == "pingpong" {
		b := make([]byte, 1<<16)
		for {
			n, err := c.Read(b)
			if err != nil {
				return nil
			}
			if _, err := c.Write(b[:n]); err != nil {
				return err
			}
		}
	}
	r := bufio.NewReaderSize(c, 1<<16)
	n := uint64(0)
	for ; ; n++ {
		h, err := r.Peek(4)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		size := int(binary.LittleEndian.Uint32(h))
		_, _ = r.Discard(4)
		if _, err := r.Peek(size); err != nil {
			return err
		}
		_, _ = r.Discard(size)
	}
	return binary.Write(c, binary.LittleEndian, n)
}

// Stream sends messages of size bytes for d, coalesced to 32 KiB, and returns how many there
// were when the child had read them all.
func Stream(c *net.UnixConn, size int, d time.Duration) (n int, err error) {
	w := bufio.NewWriterSize(c, 32<<10)
	msg := make([]byte, size)
	var h [4]byte
	binary.LittleEndian.PutUint32(h[:], uint32(size))
	for end := time.Now().Add(d); n&1023 != 0 || time.Now().Before(end); n++ {
		_, _ = w.Write(h[:])
		if _, err := w.Write(msg); err != nil {
			return n, err
		}
	}
	if err := w.Flush(); err != nil {
		return n, err
	}
	_ = c.CloseWrite()
	var got uint64
	if err := binary.Read(c, binary.LittleEndian, &got); err != nil {
		return n, err
	}
	if got != uint64(n) {
		return n, fmt.Errorf("sent %d, child read %d", n, got)
	}
	return n, nil
}

// PingPong sends size bytes back and forth for d and returns how long each took.
func PingPong(c *net.UnixConn, size int, d time.Duration) (lat []time.Duration, err error) {
	b := make([]byte, size)
	for t, end := time.Now(), time.Now().Add(d); t.Before(end); {
		if _, err := c.Write(b); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return nil, err
		}
		u := time.Now()
		lat, t = append(lat, u.Sub(t)), u
	}
	return lat, nil
}
