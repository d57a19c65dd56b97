package coppice

import (
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
)

// A link is a channel between the listener process and a worker. The master
// makes it and has no part in it: connections do not pass the master.

// link takes this child's end of a link from a frame of the master's.
func (c *child) link(f *fdipc.Frame) error {
	to, err := decode[sibling](f)
	if err != nil {
		return err
	}
	if len(f.Handles) != 1 {
		return fmt.Errorf("coppice: link to %s: %d channels in the frame", to.Worker.Name, len(f.Handles))
	}
	end, err := f.Handles[0].File()
	if errors.Is(err, fdipc.ErrRevoked) {
		return nil // the channel has ended: there is nobody to link any more
	}
	if err != nil {
		return fmt.Errorf("coppice: link to %s: %w", to.Worker.Name, err)
	}
	conn, err := fdipc.New(end, c.linkConfig(to))
	if err != nil {
		return fmt.Errorf("coppice: link to %s: %w", to.Worker.Name, err)
	}
	c.linked(to, conn)
	return nil
}

// linkConfig is the configuration of this child's end of a link.
func (c *child) linkConfig(to sibling) fdipc.Config {
	if c.dispatch == nil { // a worker: to is the listener process
		return fdipc.Config{Credits: netactor.LinkCredits, Handler: func(conn *fdipc.Conn, f *fdipc.Frame) {
			if !c.accept.HandleFrame(conn, f) {
				f.Refuse(fdipc.ReasonUnknown)
			}
		}}
	}
	return fdipc.Config{
		Credits: netactor.LinkCredits,
		Handler: func(conn *fdipc.Conn, f *fdipc.Frame) {
			if !c.dispatch.HandleFrame(to.Worker, conn, f) {
				f.Refuse(fdipc.ReasonUnknown)
			}
		},
		Settled: func(conn *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
			if !c.dispatch.Settled(conn, h, o) && o != fdipc.Claimed {
				_ = h.Close() // not one of ours
			}
		},
	}
}

// linked begins to use a link. It lasts as long as the two that it joins.
func (c *child) linked(to sibling, conn *fdipc.Conn) {
	c.linkMu.Lock()
	over := c.unlinked
	if !over {
		c.links = append(slices.DeleteFunc(c.links, closed), conn)
	}
	c.linkMu.Unlock()
	if over {
		_ = conn.Close()
		return
	}
	c.wires.add(conn)
	if c.dispatch != nil {
		c.dispatch.AddWorker(to.Worker, conn)
		return
	}
	// While the listener process is replaced the link to its successor may come
	// before the one to who has died meanwhile.
	c.linkMu.Lock()
	defer c.linkMu.Unlock()
	if to.Worker.ID < c.listener {
		_ = conn.Close()
		return
	}
	c.listener = to.Worker.ID
	c.accept.AddLink(conn)
}

func closed(conn *fdipc.Conn) bool {
	select {
	case <-conn.Done():
		return true
	default:
		return false
	}
}

// unlink closes the links of a child that has ended: a process takes its own with it,
// a goroutine would leave them behind.
func (c *child) unlink() {
	c.linkMu.Lock()
	links := c.links
	c.links, c.unlinked = nil, true
	c.linkMu.Unlock()
	for _, conn := range links {
		_ = conn.Close()
	}
}

// gone takes the master's word that a worker is reaped.
func (c *child) gone(f *fdipc.Frame) error {
	who, err := decode[sibling](f)
	if err == nil && c.dispatch != nil {
		c.dispatch.RemoveWorker(who.Worker.ID)
	}
	return err
}

// dispatchConnections is the life of the listener process: it accepts what the
// master's sockets bring, hands it over, and decides nothing else.
func (c *child) dispatchConnections() farewell {
	if c.process {
		// One thread does all there is to do, and a second costs a wake-up for most
		// connections: ADR 0034.
		runtime.GOMAXPROCS(1)
	}
	if err := c.ready(); err != nil {
		return farewell{Kind: byeError, Text: err.Error()}
	}
	<-c.ctx.Done() // the master has seen to it that nothing is under way
	if err := c.dispatch.Shutdown(c.drain); err != nil {
		return farewell{Kind: byeError, Text: err.Error()}
	}
	return farewell{Kind: byeShutdown}
}

// quiet stops accepting for good: the tree is to end. What waits in a backlog is
// still accepted, and when all that was accepted is claimed the master is told.
func (c *child) quiet() {
	if c.dispatch == nil {
		return
	}
	go func() { // ends when the dispatcher has shut down, at the latest with the drain
		if err := c.dispatch.Shutdown(c.drain); err != nil {
			c.log.Warn("listener: connections were cut", "err", err)
		}
		_ = c.conn.TrySend(control(frameQuiet, struct{}{})) // a master that is gone waits for nothing
	}()
}
