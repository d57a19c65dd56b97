package child

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/supervisor"
)

// A link is a channel between the listener process and a worker. The master
// makes it and has no part in it: connections do not pass the master. One that breaks
// while both live is told to the master, by either of the two, which makes another: see children.linkLost.

// siblingLink is one end of a link.
type siblingLink struct {
	to   childproto.Sibling
	conn *fdipc.Conn
}

// link takes this child's end of a link from a frame of the master's.
func (s *Session) link(f *fdipc.Frame) error {
	to, err := childproto.Decode[childproto.Sibling](f)
	if err != nil {
		return err
	}
	if len(f.Handles) != 1 {
		return fmt.Errorf("coppice: link to %s: %d channels in the frame", to.Worker.Name, len(f.Handles))
	}
	if !s.replaceLink(to) {
		return nil
	}
	end, err := f.Handles[0].File()
	if errors.Is(err, fdipc.ErrRevoked) {
		return nil // the channel has ended: there is nobody to link any more
	}
	if err != nil {
		return fmt.Errorf("coppice: link to %s: %w", to.Worker.Name, err)
	}
	conn, err := fdipc.New(end, s.LinkConfig(to))
	if err != nil {
		s.reportNoLink(to, err)
		return nil
	}
	s.AddLink(to, conn)
	return nil
}

// replaceLink ends the links to a child that is to have a new one: a link may have broken in
// a way that this end has not noticed. It is false when there is a newer one: two may have
// crossed on their way here, and not on that to the other end.
func (s *Session) replaceLink(to childproto.Sibling) bool {
	var old []*fdipc.Conn
	newer := false
	s.linkMu.Lock()
	for _, l := range s.links {
		if l.to.Worker.ID == to.Worker.ID {
			old = append(old, l.conn)
			newer = newer || l.to.Link > to.Link && !childproto.Ended(l.conn)
		}
	}
	s.linkMu.Unlock()
	if newer {
		return false
	}
	for _, conn := range old {
		_ = conn.Close()
		<-conn.Done() // what was offered over it is resolved
		if s.dispatcher != nil {
			s.dispatcher.RemoveLink(to.Worker.ID, conn)
		}
	}
	return true
}

// LinkConfig is the configuration of this child's end of a link.
func (s *Session) LinkConfig(to childproto.Sibling) fdipc.Config {
	cfg := fdipc.Config{
		Credits: netactor.LinkCredits,
		Closed:  func(conn *fdipc.Conn, err error) { s.linkEnded(to, conn, err) },
	}
	if s.dispatcher == nil { // a worker: to is the listener process
		cfg.NoFiles = func(conn *fdipc.Conn, f *fdipc.Frame) { s.netListeners.HandlesLost(conn, f) }
		cfg.Handler = func(conn *fdipc.Conn, f *fdipc.Frame) {
			if !s.netListeners.HandleFrame(conn, f) {
				f.Refuse(fdipc.ReasonUnknown)
			}
		}
		return cfg
	}
	cfg.Handler = func(conn *fdipc.Conn, f *fdipc.Frame) {
		if !s.dispatcher.HandleFrame(to.Worker, conn, f) {
			f.Refuse(fdipc.ReasonUnknown)
		}
	}
	cfg.Resolved = func(conn *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
		if !s.dispatcher.Settled(conn, h, o) && o != fdipc.Claimed {
			_ = h.Close() // not one of ours
		}
	}
	return cfg
}

// linkEnded is told that a link has ended. Unless one of the two has closed it, the other has
// died, or the link is broken: the master knows which.
func (s *Session) linkEnded(to childproto.Sibling, conn *fdipc.Conn, err error) {
	if s.dispatcher != nil {
		s.dispatcher.RemoveLink(to.Worker.ID, conn)
	}
	if !errors.Is(err, fdipc.ErrClosed) && !errors.Is(err, io.EOF) {
		s.reportNoLink(to, err)
	}
}

// reportNoLink tells the master that there is no link to a child, and why. A word that finds no
// room is lost: the other end has its own.
func (s *Session) reportNoLink(to childproto.Sibling, err error) {
	_ = s.conn.TrySend(childproto.NewFrame(childproto.FrameLinkLost, childproto.LinkLostFrame{
		ID: to.Worker.ID, Link: to.Link, Short: s.cfg.Short(err), Why: supervisor.Cut(err.Error()),
	}))
}

// AddLink begins to use a link. It lasts as long as the two that it joins.
func (s *Session) AddLink(to childproto.Sibling, conn *fdipc.Conn) {
	s.linkMu.Lock()
	over := s.linksClosed
	if !over {
		s.links = append(slices.DeleteFunc(s.links, func(l siblingLink) bool { return childproto.Ended(l.conn) }), siblingLink{to, conn})
	}
	s.linkMu.Unlock()
	if over {
		_ = conn.Close()
		return
	}
	s.channelStats.Add(conn)
	if s.dispatcher != nil {
		s.dispatcher.AddWorker(to.Worker, conn)
		return
	}
	// While the listener process is replaced the link to its successor may come
	// before the one to who has died meanwhile.
	s.linkMu.Lock()
	defer s.linkMu.Unlock()
	if to.Worker.ID < s.listenerID {
		_ = conn.Close()
		return
	}
	s.listenerID = to.Worker.ID
	s.netListeners.AddLink(conn)
}

// closeLinks closes the links of a child that has ended: a process takes its own with it,
// a goroutine would leave them behind.
func (s *Session) closeLinks() {
	s.linkMu.Lock()
	links := s.links
	s.links, s.linksClosed = nil, true
	s.linkMu.Unlock()
	for _, l := range links {
		_ = l.conn.Close()
	}
}

// workerGone hears from the master that a worker is reaped.
func (s *Session) workerGone(gone childproto.Sibling) {
	if s.dispatcher != nil {
		s.dispatcher.RemoveWorker(gone.Worker.ID)
	}
}

// dispatchConnections is the life of the listener process: it accepts what the
// master's sockets bring, hands it over, and decides nothing else.
func (s *Session) dispatchConnections() childproto.ExitNotice {
	if s.process {
		// One thread does all there is to do, and a second costs a wake-up for most
		// connections: ADR 0034.
		runtime.GOMAXPROCS(1)
	}
	if err := s.ready(); err != nil {
		return childproto.ExitNotice{Kind: childproto.NoticeError, Text: err.Error()}
	}
	<-s.ctx.Done() // the master has seen to it that nothing is under way
	if err := s.dispatcher.Shutdown(s.drain); err != nil {
		return childproto.ExitNotice{Kind: childproto.NoticeError, Text: err.Error()}
	}
	return childproto.ExitNotice{Kind: childproto.NoticeShutdown}
}

// stopAccepting stops accepting for good: the tree is to end. What waits in a backlog is
// still accepted, and when all that was accepted is claimed the master is told.
func (s *Session) stopAccepting() {
	if s.dispatcher == nil {
		return
	}
	go func() { // ends when the dispatcher has shut down, at the latest with the drain
		if err := s.dispatcher.Shutdown(s.drain); err != nil {
			s.log.Warn("listener: connections were cut", "err", err)
		}
		_ = s.conn.TrySend(childproto.NewFrame(childproto.FrameStopAccepting, struct{}{})) // a master that is gone waits for nothing
	}()
}
