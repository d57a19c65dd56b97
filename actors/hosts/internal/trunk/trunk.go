package trunk

import (
	"context"
	"net"
	"time"
)

// Trunk is a connection to another host. All methods may be called concurrently, and from callbacks.
type Trunk struct{}

// Peer returns who is at the other end.
func (t *Trunk) Peer() Host { return Host{} }

// Open opens a lane and waits until the peer has accepted it, or until ctx or the trunk ends. info goes to
// the peer's Config.Open, at most 4 KiB; reply is what the peer gave to Lane.Accept. What the peer
// sends waits until Lane.Join.
//
// Errors: a LaneEnd (see errors.As) with the peer's reason if it ended the lane instead; ErrLost; that of ctx,
// and then the lane is ended with no reason.
func (t *Trunk) Open(ctx context.Context, info []byte) (l *Lane, reply []byte, err error) {
	panic("not yet")
}

// OpenStream opens a stream of bytes to what the peer calls service, and waits as Open does. Its Close
// ends both directions, after what was written before.
func (t *Trunk) OpenStream(ctx context.Context, service string) (net.Conn, error) {
	panic("not yet")
}

// Close ends the trunk, and tells the peer why, at most 4 KiB of it. It does not wait.
func (t *Trunk) Close(reason string) {}

// Done is closed when the trunk has ended, before its lanes hear of it.
func (t *Trunk) Done() <-chan struct{} { return nil }

// Stats are the figures of a trunk.
type Stats struct {
	Since        time.Time     // when it came up
	RTT          time.Duration // of the last beat that was answered; zero before the first
	Silence      time.Duration // since something came
	Lanes        int           // that are open, streams included
	Sent, Got    uint64        // bytes, before TLS
	Waits        uint64        // Sends that had to wait for credit
	Held         int           // bytes that wait here for sinks
	Queued       int           // bytes that wait here for the network
	Dialled, TLS bool          // by this side; with TLS
}

// Stats returns the figures of the trunk.
func (t *Trunk) Stats() Stats { return Stats{} }
