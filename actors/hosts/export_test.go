package hosts

import (
	"context"
	"net"
	"time"

	"github.com/coppice-go/coppice/actors/hosts/internal/lease"
	"github.com/coppice-go/coppice/actors/hosts/internal/trunk"
)

// NewNamesByTime is NewNames by the clock of package time, for tests with virtual time.
func NewNamesByTime(e Engine, cfg NamesConfig) (*Names, error) {
	begun := time.Now()
	now := func() lease.Time { return lease.Time(time.Since(begun)) + 1 }
	return newNames(e, cfg, clock{now: now, alarm: func(ring func()) (alarm, error) { return newTimeAlarm(now, ring), nil }})
}

// NewNamesWithoutWatchdog is NewNamesByTime with a watchdog that never rings, as that of a process
// that was stopped and whose loop goes on first.
func NewNamesWithoutWatchdog(e Engine, cfg NamesConfig) (*Names, error) {
	begun := time.Now()
	now := func() lease.Time { return lease.Time(time.Since(begun)) + 1 }
	first := true
	return newNames(e, cfg, clock{now: now, alarm: func(ring func()) (alarm, error) {
		if first {
			first, ring = false, func() {}
		}
		return newTimeAlarm(now, ring), nil
	}})
}

// BlockLoop keeps the loop from doing anything until release is closed.
func (n *Names) BlockLoop(release <-chan struct{}) { n.post(func() { <-release }) }

// NewBootAlarm is that of the system.
func NewBootAlarm(ring func()) (set func(after time.Duration), stop func(), err error) {
	a, err := newBootAlarm(ring)
	if err != nil {
		return nil, nil, err
	}
	return func(after time.Duration) {
		if after < 0 {
			a.set(0)
			return
		}
		a.set(boottime() + lease.Time(after))
	}, a.stop, nil
}

// SetDial sets how trunks are dialled, in place of TCP.
func (c *Config) SetDial(dial func(ctx context.Context, address string) (net.Conn, error)) {
	c.dial = dial
}

// SetLastWait sets how long the last messages of a process may wait.
func (c *Config) SetLastWait(d time.Duration) { c.lastWait = d }

// SetOpenWait sets how long another host may take to accept a lane.
func (c *Config) SetOpenWait(d time.Duration) { c.openWait = d }

// SetOrderWait sets how long a host that has an order of a reload may not answer.
func (c *Config) SetOrderWait(d time.Duration) { c.orderWait = d }

// OnOpening has f called before another host is asked for a lane.
func (c *Config) OnOpening(f func()) { c.opening = f }

// SetMaxLanes sets how many lanes a trunk has.
func (c *Config) SetMaxLanes(n int) { c.maxLanes = n }

// RoomPause is before another host that has no room is asked again.
const RoomPause = roomPause

// SetPause sets how long is between two looks at Peers.
func (c *Config) SetPause(d time.Duration) { c.pause = d }

// SetLookupSRV sets what DNS asks, and returns what undoes it.
func SetLookupSRV(f func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)) (undo func()) {
	was := lookupSRV
	lookupSRV = f
	return func() { lookupSRV = was }
}

// OnMesh has f get the trunks when there is a gateway.
func (c *Config) OnMesh(f func(*trunk.Mesh)) { c.running = f }

// Abort ends a session and leaves its lease.
func (n *Names) Abort() {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_ = n.Close(over)
}

// FenceHeader is the header of a message with a fence.
const FenceHeader = fenceHeader

// WithKill has a singleton that does not stop in time call kill.
func (s Singleton) WithKill(kill func()) Singleton {
	s.kill = kill
	return s
}

// Die ends a session as the death of its process does: its lease is left.
func (n *Names) Die() {
	n.Abort()
	_ = n.lock.Close()
}
