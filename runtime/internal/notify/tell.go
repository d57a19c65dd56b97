package notify

import (
	"net"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/queue"
)

// maxTold bounds the datagrams that wait for a service manager that does not read. Further ones are
// lost.
const maxTold = 64

// A Teller sends datagrams to a service manager, in order. Its caller never waits, even if the
// socket is full because the service manager does not read.
type Teller struct{ q *queue.Queue[string] }

// NewTeller returns a Teller for the socket at address, in the form of NOTIFY_SOCKET. failed is
// called, on a goroutine of the Teller, with the error of each datagram that cannot be sent.
func NewTeller(address string, failed func(error)) *Teller {
	return &Teller{queue.New(queue.Config[string]{Max: maxTold, Take: func(state string) error {
		err := send(address, state)
		if err != nil {
			failed(err)
		}
		return err
	}})}
}

// Tell queues a datagram. It never blocks.
func (t *Teller) Tell(state string) { t.q.Put(state) }

// Flush waits until everything is sent, at most d, and reports whether it is.
func (t *Teller) Flush(d time.Duration) bool { return t.q.Flush(d) }

// send sends one datagram, and waits for room.
func send(address, state string) error {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte(state))
	return err
}
