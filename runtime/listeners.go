package coppice

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/coppice-go/coppice/supervisor"
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

// AddListener opens a listener at run time, as a child of the root, and returns the address that it
// got. Workers get it by its Name; workers that wait for it (Worker.AwaitListener) get it now.
// Errors are those of net.Listen; for a name that is taken the error wraps
// supervisor.ErrAlreadyStarted or ErrAlreadyPresent.
func (rt *Runtime) AddListener(ctx context.Context, l ListenerSpec) (net.Addr, error) {
	var errs []error
	bad := func(path, field string, value any, why string) {
		errs = append(errs, &InvalidError{path, field, value, why})
	}
	validateChildren(bad, "", []ChildSpec{l})
	if l.hasFunctions() {
		bad(l.Name, "Hooks", "func", "stand in the tree from its start, where the listener process finds them")
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	_, err := rt.tree.StartChild(ctx, supervisor.ChildSpec{ID: l.Name, Start: listenerStarter{rt.sockets, rt.log, l, l.Name}})
	if err != nil {
		return nil, fmt.Errorf("coppice: add listener %s: %w", l.Name, err)
	}
	for _, info := range rt.Listeners() {
		if slices.Contains(info.owners, l.Name) {
			return info.Addr, nil
		}
	}
	return nil, fmt.Errorf("%w: %s, it was removed at once", ErrNoListener, l.Name)
}

// RemoveListener closes a listener of the root, whether it was there from the start or added later.
// It is closed in every worker too: Accept returns net.ErrClosed there. The connections in its
// backlog are served first, if its policy hands over and workers take them.
func (rt *Runtime) RemoveListener(ctx context.Context, name string) error {
	c, err := rt.tree.ChildSpec(ctx, name)
	if _, is := c.Start.(listenerStarter); err == nil && !is {
		err = supervisor.ErrNotFound
	}
	if err == nil {
		for _, s := range rt.sockets.Sockets() {
			if slices.Contains(s.Owners, name) {
				rt.sockets.Remove(s.Number) // also for the pools whose workers have it
			}
		}
		err = rt.tree.TerminateChild(ctx, name)
	}
	if err == nil {
		err = rt.tree.DeleteChild(ctx, name)
	}
	if errors.Is(err, supervisor.ErrNotFound) {
		return fmt.Errorf("%w: %s", ErrNoListener, name)
	}
	if err != nil {
		return fmt.Errorf("coppice: remove listener %s: %w", name, err)
	}
	return nil
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
