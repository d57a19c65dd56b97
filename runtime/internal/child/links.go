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

// A link is a channel between the listener process and a worker. The master makes it and keeps no
// end: connections do not pass through the master. If a link breaks while both children live,
// either of them reports that to the master, which makes another link: see children.linkLost.

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
		return nil // the channel to the master has ended, so this child ends too
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

// replaceLink closes the old links to a child that gets a new one: a link may have broken without
// notice at this end. It returns false, and closes no link, if there is a newer link than to: two
// links may arrive here in another order than at the other end.
func (s *Session) replaceLink(to childproto.Sibling) bool {
	var old []*fdipc.Conn
	newer := false
	s.linkMu.Lock()
	for _, l := range s.links {
		if l.to.Worker.ID == to.Worker.ID {
			old = append(old, l.conn)
			newer = newer || l.to.Link > to.Link && !childproto.IsClosed(l.conn.Done())
		}
	}
	s.linkMu.Unlock()
	if newer {
		return false
	}
	for _, conn := range old {
		_ = conn.Close()
		<-conn.Done() // all offers over it are resolved
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
	cfg.Resolved = func(conn *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
		if !s.settled(conn, h, o) && o != fdipc.Claimed {
			_ = h.Close() // it was not sent by dispatcher or netListeners
		}
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
	return cfg
}

// settled handles the outcome of a handle that was sent over a link; it returns false if neither
// dispatcher nor netListeners sent it.
func (s *Session) settled(conn *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) bool {
	if s.dispatcher != nil {
		return s.dispatcher.Settled(conn, h, o)
	}
	return s.netListeners.Settled(conn, h, o)
}

// linkEnded handles the end of a link. Unless one of the two children closed it, the other child
// has died or the link is broken; the master knows which.
func (s *Session) linkEnded(to childproto.Sibling, conn *fdipc.Conn, err error) {
	if s.dispatcher != nil {
		s.dispatcher.RemoveLink(to.Worker.ID, conn)
	}
	if !errors.Is(err, fdipc.ErrClosed) && !errors.Is(err, io.EOF) {
		s.reportNoLink(to, err)
	}
}

// reportNoLink tells the master that there is no link to a child, and why. If there is no room for
// the report, it is lost: the other end sends one too.
func (s *Session) reportNoLink(to childproto.Sibling, err error) {
	_ = s.conn.TrySend(childproto.NewFrame(childproto.FrameLinkLost, childproto.LinkLostFrame{
		ID: to.Worker.ID, Link: to.Link, Short: s.cfg.Short(err), Why: supervisor.Cut(err.Error()),
	}))
}

// AddLink begins to use a link. The link lasts as long as the two children that it joins.
func (s *Session) AddLink(to childproto.Sibling, conn *fdipc.Conn) {
	s.linkMu.Lock()
	over := s.linksClosed
	if !over {
		s.links = append(slices.DeleteFunc(s.links, func(l siblingLink) bool { return childproto.IsClosed(l.conn.Done()) }), siblingLink{to, conn})
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
	// While the listener process is replaced, the link to its successor may come before the link to
	// the predecessor, which has died since.
	s.linkMu.Lock()
	defer s.linkMu.Unlock()
	if to.Worker.ID < s.listenerID {
		_ = conn.Close()
		return
	}
	s.listenerID = to.Worker.ID
	s.netListeners.AddLink(conn)
}

// closeLinks closes the links of a child that has ended. The end of a process closes its links; the
// end of a goroutine does not.
func (s *Session) closeLinks() {
	s.linkMu.Lock()
	links := s.links
	s.links, s.linksClosed = nil, true
	s.linkMu.Unlock()
	for _, l := range links {
		_ = l.conn.Close()
	}
}

// workerGone handles the master's message that a worker was reaped.
func (s *Session) workerGone(gone childproto.Sibling) {
	if s.dispatcher != nil {
		s.dispatcher.RemoveWorker(gone.Worker.ID)
	}
}

// dispatchConnections runs the listener process: it accepts connections on the master's sockets and
// hands them over, and decides nothing else.
func (s *Session) dispatchConnections() childproto.ExitNotice {
	if s.process {
		// One thread does all the work, and a second would cost a wake-up for most connections: ADR
		// 0030.
		runtime.GOMAXPROCS(1)
	}
	if err := s.ready(); err != nil {
		return childproto.ExitNotice{Kind: childproto.NoticeError, Text: err.Error()}
	}
	<-s.ctx.Done() // the master stops the listener process when no connection is under way
	if err := s.dispatcher.Shutdown(s.drain); err != nil {
		return childproto.ExitNotice{Kind: childproto.NoticeError, Text: err.Error()}
	}
	return childproto.ExitNotice{Kind: childproto.NoticeShutdown}
}

// stopAccepting stops accepting for good, because the tree will end or another listener process
// accepts. Without that one it still accepts the connections that wait in a backlog. It tells the
// master when all accepted connections are claimed.
func (s *Session) stopAccepting(r childproto.StopAccepting) {
	if s.dispatcher == nil {
		return
	}
	stop := s.dispatcher.Shutdown
	if r.Succeeded {
		stop = s.dispatcher.Retire
	}
	go func() { // ends when the dispatcher has shut down, at the latest with the drain
		if err := stop(s.drain); err != nil {
			s.log.Warn("listener: connections were cut", "err", err)
		}
		_ = s.conn.TrySend(childproto.NewFrame(childproto.FrameStopAccepting, struct{}{})) // a master that is gone waits for nothing
	}()
}
