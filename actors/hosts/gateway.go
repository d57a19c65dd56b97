package hosts

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts/internal/trunk"
	"github.com/coppice-go/coppice/fdipc"
)

// endGrace is how long after the end of a lane here the news of the end of its process may come,
// before the other host hears that the lane alone has ended.
const endGrace = 2 * time.Second

// laneReadWait is how long the messages of a process of another host that has ended may wait for
// the process that they are for; then they are lost, as between siblings. For what a process of
// this host has left, and the other host does not take yet, it is endGrace.
const laneReadWait = time.Second

// laneQueue bounds what the channel to a process holds in each direction of a lane, but for one
// frame that is longer: that is counted in the trunk until the kernel has it.
const laneQueue = 64 << 10

// openWait is how long another host may take to accept a lane.
const openWait = 10 * time.Second

// Lanes of a trunk on which little goes are left when three quarters of all are in use: so many at
// once, for each that is opened; and if none is left, an opener looks again after roomPause.
const (
	leaveAtOnce = 16
	roomPause   = 50 * time.Millisecond
)

var (
	errNoAnswer = errors.New("the other host does not answer")
	errStale    = errors.New("the other host has asked first")
)

// maxTold is how many hosts and causes the log has at most in a minute.
const maxTold = 64

var _ trunk.Flusher = (*fdipc.Conn)(nil)

// RunGateway is the gateway of the tree in a process that runs no user code, until ctx ends.
// Package runtime calls it.
func (c *Config) RunGateway(ctx context.Context, p actors.GatewayProcess) error {
	g := &gateway{
		log: c.log(), lastWait: cmp.Or(c.lastWait, laneReadWait), boot: actors.Boot(p.System().Address()), begun: make(chan struct{}),
		splices: make(map[*splice]struct{}), offers: make(map[uint64]*offeredLane), told: make(map[[2]string]struct{}),
		openWait: cmp.Or(c.openWait, openWait), opening: c.opening,
	}
	defer g.figures.measure(p.Meter())()
	cfg := c.trunks(g.boot, p.Incarnation())
	cfg.Open, cfg.Up, cfg.Down, cfg.Failed = g.opened, g.hostUp, g.hostDown, g.failed
	engine := tunnels{log: g.log}
	var sockets []Tunnel
	if m, ok := c.Engine.(MemberSpec); ok {
		sockets, engine.services = m.Joints(c.Name)
	}
	cfg.Stream = func(t *trunk.Trunk, service string, s net.Conn) { engine.take(ctx, t, service, s) }
	var err error
	if g.mesh, err = trunk.New(cfg); err != nil {
		return fmt.Errorf("hosts: %w", err)
	}
	defer g.mesh.Close()
	if c.running != nil {
		c.running(g.mesh)
	}
	if c.Engine != nil {
		g.registrar = &registrar{cfg: c, log: g.log, system: p.System()}
	}
	g.carrier = p.System().Carry(g)
	if g.registrar != nil {
		g.registrar.carrier = g.carrier
	}
	if err := c.spawnReporter(ctx, g, p.System()); err != nil {
		if ctx.Err() != nil { // another one is the gateway
			return nil
		}
		return fmt.Errorf("hosts: %w", err)
	}
	groups, err := p.System().Spawn(ctx, directoryName, func() actor.Actor { return newDirectory(p.System(), c.Name) })
	if err != nil {
		if ctx.Err() != nil { // another one is the gateway
			return nil
		}
		return fmt.Errorf("hosts: %w", err)
	}
	g.tellGroups = func(msg any) { _ = p.System().Send(context.Background(), groups, msg) }
	g.groups = func(t *trunk.Trunk) { go g.follow(t, p.System(), groups) } // ends with the trunk
	ln, err := p.Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("hosts: %w", err)
	}
	if err := p.Ready(); err != nil {
		_ = ln.Close()
		return err
	}
	select {
	case <-g.begun:
	case <-ctx.Done(): // another one is the gateway
		_ = ln.Close()
		return nil
	}
	served := make(chan error, 1)
	go func() { served <- g.mesh.Serve(ln) }() // ends with the mesh
	over := make(chan struct{})
	defer func() { <-over }()
	carry, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // until the gateway ends
		defer close(over)
		var parts sync.WaitGroup
		defer parts.Wait()
		parts.Go(func() { engine.serve(carry, g.mesh, sockets) })
		if c.Peers != nil {
			parts.Go(func() { g.followPeers(carry, c, cmp.Or(c.pause, peersPause)) })
		}
		if g.registrar != nil {
			parts.Go(func() { g.registrar.run(carry) })
		}
	}()
	select {
	case err := <-served:
		return fmt.Errorf("hosts: %w", err)
	case <-ctx.Done():
	}
	_ = g.mesh.Close()
	if err := <-served; !errors.Is(err, trunk.ErrClosed) {
		return fmt.Errorf("hosts: %w", err)
	}
	return nil
}

// gateway joins the lanes of this host's processes to lanes of trunks. It decides nothing: the
// masters do, and tell it by the methods of actors.Gateway.
type gateway struct {
	log      *slog.Logger
	boot     string
	lastWait time.Duration
	openWait time.Duration
	opening  func() // called before another host is asked for a lane; nil: nothing
	mesh     *trunk.Mesh
	carrier  *actors.Carrier
	begin    sync.Once
	begun    chan struct{} // closed when the master agrees

	registrar *registrar // nil without an engine
	states    hostStates
	figures   trunkCounters
	groups    func(*trunk.Trunk) // follows those of a host

	tellGroups func(msg any) // tells this host's

	mu      sync.Mutex
	splices map[*splice]struct{}
	offers  map[uint64]*offeredLane // that the master has not answered, by ref
	last    uint64                  // ref
	told    map[[2]string]struct{}  // hosts and why they have no trunk, as the log has been told
	since   time.Time               // when told was empty
}

// offeredLane is a lane that another host opens.
type offeredLane struct {
	lane           *trunk.Lane
	local, foreign string
}

// splice is two lanes that are joined: one to a process of this host, and one of a trunk.
type splice struct {
	g              *gateway
	local, foreign string
	number         uint64 // the master's, of the lane
	conn           *fdipc.Conn
	ready          chan struct{} // closed when lane is set, or there is none
	lane           *trunk.Lane

	// Guarded by gateway.mu.
	opening bool     // it has no lane yet
	after   []func() // what is done when it is
	stale   bool     // the other host's lane is there in place of the one that it waits for
	rests   bool     // the process has left the lane, as it had no use for it
	over    bool     // conn has ended: all that the process has sent is in the trunk
	why     []byte   // why the process has ended; nil: it is not known to have
	timer   *time.Timer
}

func (g *gateway) Begin() {
	g.begin.Do(func() { close(g.begun) })
	if d := g.registrar; d != nil {
		d.begin()
	}
}

// splice joins an end to a lane that is to come. It returns nil if the end cannot be used.
func (g *gateway) splice(number uint64, local, foreign string, end actors.HalfLane) (*splice, error) {
	s := &splice{g: g, number: number, local: local, foreign: foreign, ready: make(chan struct{}), opening: true}
	made := make(chan struct{})
	conn, err := end.Conn(fdipc.Config{
		QueueBytes: laneQueue,
		Handler:    s.carry,
		NoFiles:    func(*fdipc.Conn, *fdipc.Frame) {}, // it had handles, which do not leave the host
		Closed:     func(*fdipc.Conn, error) { <-made; s.localEnded() },
	})
	if err != nil {
		close(made)
		return nil, err
	}
	s.conn = conn
	g.mu.Lock()
	g.splices[s] = struct{}{}
	g.mu.Unlock()
	close(made)
	return s, nil
}

// carry sends a frame of the process to the other host. It waits for credit, and so does the
// process.
func (s *splice) carry(_ *fdipc.Conn, f *fdipc.Frame) {
	<-s.ready
	if len(f.Handles) > 0 { // the process is at fault: its System refuses them
		f.Refuse(fdipc.ReasonUnknown)
		s.g.log.Warn("hosts: a process has sent descriptors to another host: the message is dropped", "from", s.local, "to", s.foreign)
		return
	}
	if actors.Rested(f) {
		s.g.mu.Lock()
		s.rests = true
		s.g.mu.Unlock()
	}
	if s.lane != nil {
		_ = s.lane.Send(context.Background(), f) // on an error the lane has ended
	}
}

// join gives a splice its lane; nil: there is none.
func (s *splice) join(l *trunk.Lane) {
	s.lane = l
	close(s.ready)
	if l != nil {
		l.Join(s.conn, s.foreignEnded)
	}
	s.g.mu.Lock()
	s.opening = false
	after := s.after
	s.after = nil
	s.g.mu.Unlock()
	for _, f := range after {
		f()
	}
	if l == nil {
		go s.conn.Close() // ends within fdipc's linger
	}
	s.endIfOver() // it may have ended before
}

// localEnded takes note that all that the process has sent is in the trunk, and that no more comes.
func (s *splice) localEnded() {
	s.g.mu.Lock()
	s.over = true
	s.g.mu.Unlock()
	s.endIfOver()
}

// endIfOver ends the lane if its process has ended. If that is not known, it waits for the news.
func (s *splice) endIfOver() {
	g := s.g
	g.mu.Lock()
	_, there := g.splices[s]
	if !there || !s.over || s.opening {
		g.mu.Unlock()
		return
	}
	if s.why == nil && s.timer == nil && s.lane != nil && !s.rests {
		s.timer = time.AfterFunc(endGrace, s.endIfOver)
		g.mu.Unlock()
		return
	}
	delete(g.splices, s)
	why, timer := s.why, s.timer
	g.mu.Unlock()
	if timer != nil {
		timer.Stop()
	}
	if s.lane == nil {
		return
	}
	if why == nil { // otherwise the master has said so
		g.carrier.LaneEnded(s.number, s.local, s.foreign, nil)
	}
	s.lane.End(why)
}

// foreignEnded takes the end of the lane, after the last frame from there was given to the channel
// of the process. The process hears of the end when it has what came before.
func (s *splice) foreignEnded(e *trunk.LaneEnd) {
	s.g.mu.Lock()
	its := e.Err == nil || errors.Is(e.Err, trunk.ErrLost) // the other host has ended it, or cannot be told
	if its {
		delete(s.g.splices, s)
	}
	s.g.mu.Unlock()
	go func() { // ends within lastWait and fdipc's linger
		if its {
			ctx, cancel := context.WithTimeout(context.Background(), s.g.lastWait)
			_ = s.conn.Flush(ctx, fdipc.Control) && s.conn.Flush(ctx, fdipc.Data)
			cancel()
		}
		_ = s.conn.Close()
		if e.Err == nil {
			s.g.carrier.LaneEnded(s.number, s.local, s.foreign, e.Reason)
			s.lane.End(nil)
		}
	}()
}

// laneInfo is what the opener of a lane says of it, and its peer's reply.
func laneInfo(from string, incarnation uint64, to string) []byte {
	b := binary.AppendUvarint(nil, incarnation)
	b = append(binary.AppendUvarint(b, uint64(len(from))), from...)
	return append(b, to...)
}

func readLaneInfo(b []byte) (from string, incarnation uint64, to string, ok bool) {
	incarnation, n := binary.Uvarint(b)
	if n <= 0 {
		return "", 0, "", false
	}
	b = b[n:]
	length, n := binary.Uvarint(b)
	if n <= 0 || length > uint64(len(b)-n) {
		return "", 0, "", false
	}
	b = b[n:]
	return string(b[:length]), incarnation, string(b[length:]), true
}

// OpenLane opens a lane to another host.
func (g *gateway) OpenLane(number uint64, from string, incarnation uint64, to string, end actors.HalfLane) {
	s, err := g.splice(number, from, to, end)
	if err != nil {
		g.carrier.Failed(number, to, err)
		return
	}
	t := g.mesh.ByBoot(actors.Boot(to))
	if t == nil {
		g.carrier.Refused(number, to, nil)
		s.join(nil)
		return
	}
	go func() { // ends with the other host's answer, with the trunk, or after openWait
		ctx, cancel := context.WithTimeoutCause(context.Background(), g.openWait, errNoAnswer)
		defer cancel()
		lane, reply, err := g.open(ctx, t, s, laneInfo(from, incarnation, to))
		its, n := binary.Uvarint(reply)
		end, ended := errors.AsType[*trunk.LaneEnd](err)
		switch {
		case errors.Is(err, errStale): // the master knows
		case err == nil && n > 0:
			g.carrier.Opened(number, to, its)
			s.join(lane)
			return
		case err == nil:
			lane.End(nil)
			g.carrier.Failed(number, to, trunk.ErrProtocol)
		case ended && end.Err == nil && len(end.Reason) > 0:
			g.carrier.Refused(number, to, end.Reason)
		case errors.Is(err, trunk.ErrLost):
			g.carrier.Refused(number, to, nil)
		default:
			g.carrier.Failed(number, to, cmp.Or(context.Cause(ctx), err))
		}
		s.join(nil)
	}()
}

// open opens a lane of a trunk for a splice. While there is no room, on either side, lanes that are
// idle are to be left, and it tries again. It fails with errStale if the other host's lane for the
// two processes was accepted before its own was asked for: by then the other host takes it for one
// that replaces that lane.
func (g *gateway) open(ctx context.Context, t *trunk.Trunk, s *splice, info []byte) (*trunk.Lane, []byte, error) {
	if g.opening != nil {
		g.opening()
	}
	for {
		g.relieve(t)
		room := t.Room()
		g.mu.Lock()
		if s.stale {
			g.mu.Unlock()
			return nil, nil, errStale
		}
		opening, err := t.Begin(info)
		g.mu.Unlock()
		var lane *trunk.Lane
		var reply []byte
		if err == nil {
			lane, reply, err = opening.Wait(ctx)
		}
		if !errors.Is(err, fdipc.ErrFull) && !errors.Is(err, trunk.ErrRefused) {
			return lane, reply, err
		}
		if errors.Is(err, trunk.ErrRefused) {
			room = nil // there is some: that of the lane that was refused
		}
		select {
		case <-room:
		case <-time.After(roomPause): // the other side may have it
		case <-ctx.Done():
			return nil, nil, err
		}
	}
}

// relieve has lanes of a trunk left that were used least of late, if few more are possible.
func (g *gateway) relieve(t *trunk.Trunk) {
	least := t.Least(leaveAtOnce)
	if len(least) == 0 {
		return
	}
	of := make(map[*trunk.Lane]*splice)
	g.mu.Lock()
	for s := range g.splices {
		if !s.opening {
			of[s.lane] = s
		}
	}
	g.mu.Unlock()
	for _, l := range least {
		if s := of[l]; s != nil {
			g.carrier.Rest(s.local, s.foreign)
		}
	}
}

// opened takes a lane that another host opens, if it is one of a process of that host.
func (g *gateway) opened(l *trunk.Lane, info []byte) {
	from, incarnation, to, ok := readLaneInfo(info)
	host := l.Trunk().Peer()
	bad := func() {
		if g.isNews(host.Name, "lane") {
			g.log.Error("hosts: a host opens a lane that cannot be", "host", host.Name, "from", from, "to", to)
		}
		l.End(nil)
	}
	if !ok || actors.Boot(from) != host.Boot || actors.Boot(to) != g.boot {
		bad()
		return
	}
	g.mu.Lock()
	g.last++
	ref := g.last
	g.offers[ref] = &offeredLane{l, to, from}
	g.mu.Unlock()
	if !g.carrier.Offer(ref, from, incarnation, to) && g.take(ref) != nil {
		bad()
	}
}

func (g *gateway) take(ref uint64) *offeredLane {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.offers[ref]
	delete(g.offers, ref)
	return o
}

// LaneAccepted accepts a lane of another host.
func (g *gateway) LaneAccepted(ref, number, incarnation uint64, end actors.HalfLane) {
	o := g.take(ref)
	if o == nil {
		end.Close()
		return
	}
	g.mu.Lock()
	for s := range g.splices {
		if s.opening && s.local == o.local && s.foreign == o.foreign {
			s.stale = true
		}
	}
	g.mu.Unlock()
	s, err := g.splice(number, o.local, o.foreign, end)
	if err == nil {
		if err = o.lane.Accept(binary.AppendUvarint(nil, incarnation)); err == nil {
			s.join(o.lane)
			return
		}
		s.join(nil)
	}
	g.log.Warn("hosts: a lane of another host is not taken", "from", o.foreign, "to", o.local, "err", err)
	g.carrier.LaneEnded(number, o.local, o.foreign, nil)
	o.lane.End(nil)
}

// LaneDeclined refuses a lane of another host, after the one that this host opens for the two.
func (g *gateway) LaneDeclined(ref uint64, why []byte) {
	o := g.take(ref)
	if o == nil {
		return
	}
	why = bytes.Clone(why)
	end := func() { o.lane.End(why) }
	g.mu.Lock()
	for s := range g.splices {
		if s.opening && s.local == o.local && s.foreign == o.foreign {
			s.after = append(s.after, end)
			g.mu.Unlock()
			return
		}
	}
	g.mu.Unlock()
	end()
}

// ProcessEnded ends the lanes of a process of this host when what it has sent is in the trunk.
func (g *gateway) ProcessEnded(address string, why []byte) {
	why = bytes.Clone(why)
	var its []*splice
	g.mu.Lock()
	for s := range g.splices {
		if s.local == address {
			s.why = why
			if !s.over && s.timer == nil { // what the other host does not take is lost
				s.timer = time.AfterFunc(endGrace, s.localEnded)
			}
			its = append(its, s)
		}
	}
	g.mu.Unlock()
	for _, s := range its {
		s.conn.PeerGone()
		s.endIfOver()
	}
}

func (g *gateway) hostUp(t *trunk.Trunk) {
	peer := t.Peer()
	g.mu.Lock()
	maps.DeleteFunc(g.told, func(of [2]string, _ struct{}) bool { return of[0] == peer.Name })
	g.mu.Unlock()
	g.states.up(peer)
	g.figures.up(t)
	g.log.Info("hosts: a host is up", "host", peer.Name, "boot", peer.Boot)
	g.tellGroups(foreignUp{t, peer})
	g.carrier.HostUp(peer.Name, peer.Boot)
	g.groups(t)
}

func (g *gateway) hostDown(t *trunk.Trunk, err error) {
	peer := t.Peer()
	g.mu.Lock()
	maps.DeleteFunc(g.offers, func(_ uint64, o *offeredLane) bool { return o.lane.Trunk() == t })
	g.mu.Unlock()
	g.states.down(peer, err)
	g.figures.down(t)
	g.log.Warn("hosts: a host is unreachable", "host", peer.Name, "boot", peer.Boot, "err", err)
	g.carrier.HostDown(peer.Boot)
	g.tellGroups(foreignLost{t})
}

// failed logs why there is no trunk: once for each host and cause, until the host is up.
func (g *gateway) failed(host string, err error) {
	if peer := g.states.failed(host, err); errors.Is(err, trunk.ErrRefused) {
		g.figures.refused(host, peer)
	}
	level := slog.LevelDebug
	if g.isNews(host, err.Error()) {
		level = slog.LevelWarn
	}
	g.log.Log(context.Background(), level, "hosts: no trunk", "host", host, "err", err)
}

// isNews reports whether this was not said of the host since it was up last, but for the numbers in
// it, such as ports. Strangers can say what they like: so it remembers maxTold, and begins anew
// each minute at most.
func (g *gateway) isNews(host, cause string) bool {
	of := [2]string{host, strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, cause)}
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, old := g.told[of]; old {
		return false
	}
	if len(g.told) >= maxTold {
		if time.Since(g.since) < time.Minute {
			return false
		}
		clear(g.told)
	}
	if len(g.told) == 0 {
		g.since = time.Now()
	}
	g.told[of] = struct{}{}
	return true
}
