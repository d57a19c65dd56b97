package coppice

import (
	"context"
	"fmt"
	"time"
)

// Listeners returns the sockets that the master holds, in the order in which they were opened. It
// never waits.
func (rt *Runtime) Listeners() []ListenerInfo { return rt.listeners(rt.sockets.LastStats()) }

// ListenerStats returns Listeners with the present counts: it asks the listener process.
func (rt *Runtime) ListenerStats(ctx context.Context) ([]ListenerInfo, error) {
	stats, err := rt.sockets.Stats(ctx)
	if err != nil {
		return nil, fmt.Errorf("coppice: listener stats: %w", err)
	}
	return rt.listeners(stats, time.Now()), nil
}

func (rt *Runtime) listeners(stats []ListenerStats, at time.Time) []ListenerInfo {
	var infos []ListenerInfo
	for _, s := range rt.sockets.Sockets() {
		l := ListenerInfo{Name: s.Name, Addr: addr{s.Network, s.Address}, Policy: s.Policy, Paused: s.Paused, Refuses: s.Refuses, owners: s.Owners}
		for i := range stats {
			if stats[i].Number == s.Number {
				l.Stats, l.StatsAt, l.Fairness = &stats[i], at, stats[i].Jain()
			}
		}
		infos = append(infos, l)
	}
	return infos
}

// PauseListener stops accepting on a listener, in every process, until ResumeListener: connections
// wait in the kernel's backlog. name is the listener's Name or its address. A packet socket cannot
// be paused; the error is ErrUnsupported.
func (rt *Runtime) PauseListener(name string) error { return rt.withListener(name, rt.sockets.Pause) }

// ResumeListener ends the pause of PauseListener, and a pause that refuses clients.
func (rt *Runtime) ResumeListener(name string) error { return rt.withListener(name, rt.sockets.Resume) }

func (rt *Runtime) withListener(name string, f func(number uint64) bool) error {
	err := fmt.Errorf("%w: %s", ErrNoListener, name)
	for _, s := range rt.sockets.Sockets() {
		if s.Name != name && s.Address != name {
			continue
		}
		if f(s.Number) {
			return nil
		}
		if (ListenerSpec{Network: s.Network}).packet() { // there may be a TCP listener at the same address
			err = fmt.Errorf("%w: %s takes datagrams, and is read by its workers", ErrUnsupported, name)
		}
	}
	return err
}
