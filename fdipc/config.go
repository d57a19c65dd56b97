package fdipc

import (
	"errors"
	"fmt"
	"time"
)

// Config configures one side of a Conn. Zero fields mean the default.
type Config struct {
	// Handler gets every frame of the application. Each lane has a goroutine of its
	// own, which calls it in order: a control frame can be handled while a data frame
	// is still being handled, frames of one lane never. The frame, its payload
	// and the slice of handles are borrowed until it returns; the handles are its own.
	//
	// A Handler that blocks stops its lane, and in the end the peer's Send on that
	// lane; the other lane goes on. So a Handler may hold up Data on purpose, and should
	// not hold up Control. A Handler uses TrySend: two Handlers that wait in Send for each
	// other wait until their contexts end. A panic is not caught. Required.
	Handler func(c *Conn, f *Frame)

	// Resolved is called once for every handle that was sent, one call at a time, never from
	// within Send. It runs on the goroutine of a timer, on that of the control lane, on that which
	// ends the Conn, or on that of a caller of ResolveOffers; while it runs no other outcome is
	// told. For Refused and Returned the handle belongs to the callback; for Claimed it is about
	// to be closed here. Nil: refused and returned handles are closed.
	Resolved func(c *Conn, h *Handle, o Outcome)

	// NoFiles gets each frame whose handles did not come because this process is out of
	// descriptors. It is called instead of Handler and under its rules. The frame has no handles:
	// they were refused with [ReasonNoFiles]. Nil: such a frame is dropped.
	NoFiles func(c *Conn, f *Frame)

	// Ready is called once, when the handshake is over, before the first frame is handled.
	// On the goroutine of the control lane. Optional.
	Ready func(c *Conn)

	// Closed is the last call of all, once. The error is [ErrClosed] after Close here,
	// io.EOF after Close there, else what went wrong. Optional.
	Closed func(c *Conn, err error)

	// QueueBytes and QueueFrames bound what one lane holds before the kernel takes it. At the bound
	// Send waits and TrySend returns ErrFull. A frame larger than QueueBytes passes when the queue
	// is empty, so a lane holds at most QueueBytes + MaxFrame. Defaults 1 MiB and 16,384.
	QueueBytes  int
	QueueFrames int

	// Credits bounds the handles that are offered and not yet claimed: those this
	// side offers (together with the peer's own figure, the lower holds), and those the peer may
	// offer. At most 65,536, default 256.
	Credits int

	// ClaimTimeout is how long an offered handle may stay unclaimed before it is
	// revoked and comes back as Returned. Time in which this process was stopped hardly counts:
	// the peer may have been stopped too. Default 1 s; negative means never.
	ClaimTimeout time.Duration

	// HandshakeTimeout bounds the wait for the peer's first packet. Default 30 s;
	// negative means no bound.
	HandshakeTimeout time.Duration

	// MaxFrame bounds the payload of one frame in bytes, in both directions. At most 1 GiB, default
	// 64 MiB. On the control lane it is 4 MiB at most. Memory for a frame grows as it arrives. So a
	// hostile peer can make the receiver hold about two of the largest frames.
	MaxFrame int

	// Suspendable allows [Conn.Suspend], for one descriptor more: that of the peer's claim table,
	// from which the next image of the process maps it again.
	Suspendable bool

	// tick replaces the constant, for tests that must pass without it.
	tick time.Duration

	assemblyTick time.Duration // default 1 s; see assemblyTicks
}

const (
	defaultQueueBytes       = 1 << 20
	defaultQueueFrames      = 16384
	defaultCredits          = 256
	defaultClaimTimeout     = time.Second
	defaultHandshakeTimeout = 30 * time.Second
	defaultMaxFrame         = 64 << 20

	maxCredits  = 1 << 16
	maxControl  = 4 << 20 // of one frame of the control lane
	maxMaxFrame = 1 << 30
)

// validate fills in the defaults and reports every field that is out of range.
func (cfg *Config) validate() error {
	var errs []error
	def := func(name string, v *int, d, limit int) {
		if *v == 0 {
			*v = d
		}
		if *v < 1 || *v > limit {
			errs = append(errs, fmt.Errorf("%s = %d: not in 1..%d", name, *v, limit))
		}
	}
	if cfg.Handler == nil {
		errs = append(errs, errors.New("no Handler"))
	}
	def("QueueBytes", &cfg.QueueBytes, defaultQueueBytes, maxMaxFrame)
	def("QueueFrames", &cfg.QueueFrames, defaultQueueFrames, maxMaxFrame)
	def("Credits", &cfg.Credits, defaultCredits, maxCredits)
	def("MaxFrame", &cfg.MaxFrame, defaultMaxFrame, maxMaxFrame)
	if cfg.ClaimTimeout == 0 {
		cfg.ClaimTimeout = defaultClaimTimeout
	}
	if cfg.tick == 0 {
		cfg.tick = tick
	}
	if cfg.assemblyTick == 0 {
		cfg.assemblyTick = time.Second
	}
	if cfg.HandshakeTimeout == 0 {
		cfg.HandshakeTimeout = defaultHandshakeTimeout
	}
	if len(errs) > 0 {
		return fmt.Errorf("fdipc: config: %w", errors.Join(errs...))
	}
	return nil
}
