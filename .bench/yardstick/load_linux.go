package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// load is what a generator saw between begin and end: it is one thread with an epoll, so that it
// costs little beside what it measures.
type load struct {
	ops    int
	took   time.Duration
	micros []uint32 // latencies
	shares [256]int // by the first byte of an answer
}

// measured is the part of a load's life that counts: after a warm-up, for d. begin and end are
// called at its borders.
type measured struct {
	d          time.Duration
	begin, end func()
}

// generator loads a server with n connections at a time.
type generator func(addr netip.AddrPort, n int, m measured) (*load, error)

const warmUp = 250 * time.Millisecond

// during calls turn until d is over. turn does what is ready, and notes it in l.
func (m measured) during(l *load, turn func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := time.Now()
	for time.Since(start) < warmUp {
		if err := turn(); err != nil {
			return err
		}
	}
	*l = load{micros: l.micros[:0]}
	m.begin()
	start = time.Now()
	for time.Since(start) < m.d {
		if err := turn(); err != nil {
			return err
		}
	}
	l.took = time.Since(start)
	m.end()
	if l.ops == 0 {
		return errors.New("nothing measured")
	}
	return nil
}

// result is a row without its name and processor time.
func (l *load) result(unit string) result {
	slices.Sort(l.micros)
	at := func(q float64) float64 { return float64(l.micros[int(float64(len(l.micros)-1)*q)]) }
	return result{Unit: unit, Value: float64(l.ops) / l.took.Seconds(), P50: at(.5), P99: at(.99)}
}

// jain is Jain's index of fairness over the shares of n workers.
func (l *load) jain(n int) float64 {
	var sum, squares float64
	for _, s := range l.shares {
		sum += float64(s)
		squares += float64(s) * float64(s)
	}
	return sum * sum / (float64(n) * squares)
}

// epoll is an epoll instance and its events.
type epoll struct {
	fd     int
	events [256]unix.EpollEvent
}

func newEpoll() (*epoll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return &epoll{fd: fd}, err
}

func (e *epoll) add(fd int) error {
	return unix.EpollCtl(e.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// patience is how long nothing may happen.
const patience = 5000

func (e *epoll) wait() ([]unix.EpollEvent, error) {
	for {
		n, err := unix.EpollWait(e.fd, e.events[:], patience)
		if err == unix.EINTR {
			continue
		}
		if err == nil && n == 0 {
			err = errors.New("the server does not answer")
		}
		return e.events[:max(n, 0)], err
	}
}

// connects keeps n connects under way: each waits for a byte and is reset.
func connects(addr netip.AddrPort, n int, m measured) (l *load, err error) {
	e, err := newEpoll()
	if err != nil {
		return nil, err
	}
	defer unix.Close(e.fd)
	l = &load{micros: make([]uint32, 0, 1<<20)}
	g := &connector{e: e, server: unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}, open: make(map[int]time.Time)}
	defer g.close()
	for range n {
		if err := g.connect(); err != nil {
			return nil, err
		}
	}
	var b [8]byte
	err = m.during(l, func() error {
		ready, err := e.wait()
		if err != nil {
			return err
		}
		for _, ev := range ready {
			fd := int(ev.Fd)
			k, err := unix.Read(fd, b[:])
			if err != nil {
				return fmt.Errorf("a connection: %w", err)
			}
			if k == 0 {
				return fmt.Errorf("a connection: %w before the byte", io.EOF)
			}
			l.ops++
			l.shares[b[0]]++
			l.micros = append(l.micros, uint32(time.Since(g.open[fd]).Microseconds()))
			g.end(fd)
			if err := g.connect(); err != nil {
				return err
			}
		}
		return nil
	})
	return l, err
}

// connector opens connections from many addresses of 127/8, so that ports cannot run out, and
// closes them by a reset, so that none stays in TIME_WAIT.
type connector struct {
	e      *epoll
	server unix.SockaddrInet4
	local  unix.SockaddrInet4
	seq    int
	open   map[int]time.Time
}

func (g *connector) connect() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	g.open[fd] = time.Now()
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	g.seq++
	g.local.Addr = [4]byte{127, 0, byte(g.seq / 200 % 200), byte(2 + g.seq%200)}
	if err := unix.Bind(fd, &g.local); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if err := unix.Connect(fd, &g.server); err != nil && err != unix.EINPROGRESS {
		return fmt.Errorf("connect: %w", err)
	}
	return g.e.add(fd)
}

func (g *connector) end(fd int) {
	delete(g.open, fd)
	_ = unix.Close(fd)
}

func (g *connector) close() {
	for fd := range g.open {
		_ = unix.Close(fd)
	}
}

// request is what a client of ours sends.
var request = []byte("GET / HTTP/1.1\r\nHost: yardstick\r\n\r\n")

// keepAlive makes requests over n connections that stay open, on each the next once the last is
// answered.
func keepAlive(addr netip.AddrPort, n int, m measured) (l *load, err error) {
	e, err := newEpoll()
	if err != nil {
		return nil, err
	}
	defer unix.Close(e.fd)
	g := &connector{e: e, server: unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}, open: make(map[int]time.Time)}
	defer g.close()
	l = &load{micros: make([]uint32, 0, 1<<20)}
	b, size := make([]byte, 4096), 0
	for range n {
		if err := g.connect(); err != nil {
			return nil, err
		}
	}
	for fd := range g.open {
		// One request on each connection in turn, which also shows the length of an answer.
		if size, err = first(fd, b); err != nil {
			return nil, err
		}
	}
	have := make(map[int]int, n)
	send := func(fd int) error {
		g.open[fd] = time.Now()
		_, err := unix.Write(fd, request)
		return err
	}
	for fd := range g.open {
		if err := send(fd); err != nil {
			return nil, err
		}
	}
	err = m.during(l, func() error {
		ready, err := e.wait()
		if err != nil {
			return err
		}
		for _, ev := range ready {
			fd := int(ev.Fd)
			k, err := unix.Read(fd, b)
			if err != nil || k == 0 {
				return fmt.Errorf("a connection ended: %v", err)
			}
			if have[fd] += k; have[fd] < size {
				continue
			}
			if have[fd] > size {
				return fmt.Errorf("an answer of more than %d bytes", size)
			}
			have[fd] = 0
			l.ops++
			l.micros = append(l.micros, uint32(time.Since(g.open[fd]).Microseconds()))
			if err := send(fd); err != nil {
				return err
			}
		}
		return nil
	})
	return l, err
}

// first makes one request on a new connection and returns the length of the answer.
func first(fd int, b []byte) (int, error) {
	ready := func(events int16) error {
		p := []unix.PollFd{{Fd: int32(fd), Events: events}}
		for {
			k, err := unix.Poll(p, patience)
			if err == unix.EINTR {
				continue
			}
			if err == nil && k == 0 {
				err = errors.New("the server does not answer")
			}
			return err
		}
	}
	if err := ready(unix.POLLOUT); err != nil {
		return 0, err
	}
	if _, err := unix.Write(fd, request); err != nil {
		return 0, err
	}
	for have := 0; ; {
		if err := ready(unix.POLLIN); err != nil {
			return 0, err
		}
		k, err := unix.Read(fd, b[have:])
		if err != nil || k == 0 {
			return 0, fmt.Errorf("a connection ended: %v", err)
		}
		have += k
		head, _, whole := bytes.Cut(b[:have], []byte("\r\n\r\n"))
		if !whole {
			continue
		}
		if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
			return 0, fmt.Errorf("answer %q", head)
		}
		_, rest, _ := bytes.Cut(head, []byte("Content-Length: "))
		rest, _, _ = bytes.Cut(rest, []byte("\r\n"))
		body, err := strconv.Atoi(string(rest))
		if err != nil {
			return 0, fmt.Errorf("answer %q", head)
		}
		if have == len(head)+4+body {
			return have, nil
		}
	}
}

// download fetches the file, one time after the other over one connection.
func download(addr netip.AddrPort, _ int, m measured) (*load, error) {
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	l, r := &load{}, bufio.NewReaderSize(c, 1<<20)
	return l, m.during(l, func() error {
		began := time.Now()
		if _, err := io.WriteString(c, "GET /file HTTP/1.1\r\nHost: yardstick\r\n\r\n"); err != nil {
			return err
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if err == nil && n != fileSize {
			err = fmt.Errorf("%s, %d bytes", resp.Status, n)
		}
		l.ops++
		l.micros = append(l.micros, uint32(time.Since(began).Microseconds()))
		return err
	})
}
