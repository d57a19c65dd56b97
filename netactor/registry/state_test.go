package registry

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/address"
	"github.com/coppice-go/coppice/netactor/internal/socket"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// master drives a tableState by hand; ports counts up where port 0 is asked.
type master struct {
	t      testing.TB
	s      *tableState
	port   int
	busy   map[string]syscall.Errno // addresses that cannot be opened
	log    []string
	reply  map[uint64]wire.ListenReply // by ask
	closed []uint64
	seq    uint64
}

func newMaster(t testing.TB) *master {
	m := &master{t: t, s: newTableState(), port: 40000, busy: make(map[string]syscall.Errno), reply: make(map[uint64]wire.ListenReply)}
	m.do(m.s.attach())
	return m
}

// do performs effects as the driver does, without sockets.
func (m *master) do(effects []effect) {
	for len(effects) > 0 {
		e := effects[0]
		effects = effects[1:]
		switch e.kind {
		case doOpen:
			r := wire.ListenReply{Network: "tcp", Address: e.req.Address}
			if address.IsPacket(e.req.Network) {
				r.Network = "udp"
			}
			if wire.Port(e.req.Request) == 0 {
				m.port++
				r.Address = strings.TrimSuffix(e.req.Address, "0") + fmt.Sprint(m.port)
			}
			if errno := m.busy[r.Address]; errno != 0 {
				r = wire.ListenReply{Errno: int(errno), Call: "bind"}
			} else {
				m.busy[r.Address] = syscall.EADDRINUSE
			}
			m.log = append(m.log, fmt.Sprintf("open %d", e.number))
			effects = append(effects, m.s.opened(e.number, r)...)
		case doReply:
			m.reply[e.request.seq] = e.reply
		case doClose:
			m.closed = append(m.closed, e.number)
		case doPublish:
			m.log = append(m.log, fmt.Sprintf("publish %d", e.number))
		case doShut:
			m.log = append(m.log, fmt.Sprintf("shut %d", e.number))
		case doTell:
			m.log = append(m.log, fmt.Sprintf("tell %d of %d", e.worker, e.number))
		case doDiscard:
			m.log = append(m.log, "discard")
		case doNoteName:
			m.log = append(m.log, "name")
		case doRefuse, doAdmit, doOpened, doReopened, doPause, doRetire, doRepair, doRenew, doEnd, doWatch, doCopy:
		}
	}
	if len(m.s.sockets) < 9 && m.seq < 99 { // each test goes through an exec at each step
		m.s = replaced(m.t, m.s)
	}
}

func (m *master) worker(id uint64, generation int) {
	m.s.addWorker(netactor.Worker{ID: id, Pool: "web", Generation: generation})
}

func tcp(address string) netactor.Request { return netactor.Request{Network: "tcp4", Address: address} }

// ask makes a worker listen, and returns the reply.
func (m *master) ask(worker uint64, r netactor.Request) wire.ListenReply {
	m.seq++
	seq := m.seq
	m.do(m.s.listen(pendingRequest{worker: worker, owner: "web", seq: seq, req: socket.SocketSpec{Request: r}}))
	return m.reply[seq]
}

func (m *master) free(address string) { delete(m.busy, address) }

// ack is the listener process's report that it has closed its copy.
func (m *master) ack(number uint64) {
	m.free(m.s.sockets[number].addr.Address)
	m.do(m.s.shutAcked(number))
}

func errno(r wire.ListenReply) syscall.Errno { return syscall.Errno(r.Errno) }

func TestTableShare(t *testing.T) {
	t.Run("N108 two workers on one address share", func(t *testing.T) {
		m := newMaster(t)
		m.worker(1, 0)
		m.worker(2, 0)
		a, b := m.ask(1, tcp("127.0.0.1:80")), m.ask(2, tcp("127.0.0.1:80"))
		if a.Number != b.Number || a.Number == 0 {
			t.Errorf("numbers %d and %d", a.Number, b.Number)
		}
	})
	t.Run("N8 N25 port 0 is random once and then equal, per ordinal", func(t *testing.T) {
		m := newMaster(t)
		m.worker(1, 0)
		m.worker(2, 0)
		zero, one := tcp("127.0.0.1:0"), tcp("127.0.0.1:0")
		one.Ordinal = 1
		a0, a1 := m.ask(1, zero), m.ask(1, one)
		b0, b1 := m.ask(2, zero), m.ask(2, one)
		if a0.Address != b0.Address || a1.Address != b1.Address || a0.Address == a1.Address {
			t.Errorf("%s %s, %s %s", a0.Address, b0.Address, a1.Address, b1.Address)
		}
	})
	t.Run("N134 X10 the number that port 0 got is an alias", func(t *testing.T) {
		m := newMaster(t)
		m.worker(1, 0)
		m.worker(2, 0)
		a := m.ask(1, tcp("127.0.0.1:0"))
		if b := m.ask(2, tcp(a.Address)); b.Number != a.Number {
			t.Errorf("%+v", b)
		}
	})
	t.Run("N142 the same address twice in one worker is EADDRINUSE", func(t *testing.T) {
		m := newMaster(t)
		m.worker(1, 0)
		m.ask(1, tcp("127.0.0.1:80"))
		again := tcp("127.0.0.1:80")
		again.Ordinal = 1
		if r := m.ask(1, again); errno(r) != syscall.EADDRINUSE {
			t.Errorf("%+v", r)
		}
		if r := m.ask(1, tcp("127.0.0.1:80")); errno(r) != syscall.EADDRINUSE {
			t.Errorf("without its ordinal: %+v", r)
		}
	})
	t.Run("N27 an error is forgotten at once", func(t *testing.T) {
		m := newMaster(t)
		m.worker(1, 0)
		m.busy["127.0.0.1:80"] = syscall.EACCES
		if r := m.ask(1, tcp("127.0.0.1:80")); errno(r) != syscall.EACCES {
			t.Fatalf("%+v", r)
		}
		m.free("127.0.0.1:80")
		if r := m.ask(1, tcp("127.0.0.1:80")); r.Errno != 0 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("an error goes to all who waited", func(t *testing.T) {
		m := newMaster(t)
		m.worker(1, 0)
		m.worker(2, 0)
		p := pendingRequest{worker: 1, owner: "web", seq: 1, req: socket.SocketSpec{Request: tcp("127.0.0.1:80")}}
		effects := m.s.listen(p)
		p.worker, p.seq = 2, 2
		if e := m.s.listen(p); e != nil {
			t.Fatalf("the second opens too: %v", e)
		}
		m.busy["127.0.0.1:80"] = syscall.EADDRINUSE
		m.do(effects)
		if errno(m.reply[1]) != syscall.EADDRINUSE || errno(m.reply[2]) != syscall.EADDRINUSE {
			t.Errorf("%+v %+v", m.reply[1], m.reply[2])
		}
	})
	t.Run("names", func(t *testing.T) {
		m := newMaster(t)
		m.worker(1, 0)
		if r := m.ask(1, netactor.Request{Name: "http"}); errno(r) != syscall.ENOENT {
			t.Errorf("nobody has opened it: %+v", r)
		}
		spec := tcp("127.0.0.1:80")
		spec.Name = "http"
		m.do(m.s.listen(pendingRequest{owner: "listener/http", seq: 100, req: socket.SocketSpec{Request: spec}}))
		if r := m.ask(1, netactor.Request{Name: "http"}); r.Number != m.reply[100].Number {
			t.Errorf("by name: %+v", r)
		}
		other := tcp("127.0.0.1:81")
		other.Name = "http"
		m.worker(2, 0)
		if r := m.ask(2, other); errno(r) != syscall.EADDRINUSE {
			t.Errorf("the name with another address: %+v", r)
		}
		if r := m.ask(2, spec); r.Number != m.reply[100].Number {
			t.Errorf("name and address: %+v", r)
		}
	})
	t.Run("port 0 is one of the name's, or of the pool's", func(t *testing.T) {
		m := newMaster(t)
		m.worker(1, 0)
		m.worker(2, 0)
		m.s.addWorker(netactor.Worker{ID: 3, Pool: "other"})
		zero := tcp("127.0.0.1:0")
		public, admin := zero, zero
		public.Name, admin.Name = "public", "admin"
		m.do(m.s.listen(pendingRequest{worker: 3, owner: "other", seq: 300, req: socket.SocketSpec{Request: zero}}))
		numbers := []uint64{m.ask(1, public).Number, m.ask(1, admin).Number, m.ask(1, zero).Number, m.reply[300].Number}
		if slices.Sort(numbers); len(slices.Compact(numbers)) != 4 || numbers[0] == 0 {
			t.Errorf("sockets %v", numbers)
		}
		for _, r := range []netactor.Request{public, admin, zero} {
			if got, _ := m.s.find(pendingRequest{worker: 2, owner: "web", req: socket.SocketSpec{Request: r}}); got == nil || m.ask(2, r).Number != got.number || len(got.holders()) != 2 {
				t.Errorf("%q of another worker: %+v", r.Name, got)
			}
		}
		if slices.Contains(m.log, "name") {
			t.Errorf("a line of two names: %v", m.log)
		}
	})
	t.Run("two names of a fixed address are one socket, with a line", func(t *testing.T) {
		m := newMaster(t)
		for i, name := range []string{"public", "admin"} {
			spec := tcp("127.0.0.1:80")
			spec.Name = name
			m.do(m.s.listen(pendingRequest{owner: name, seq: uint64(100 + i), req: socket.SocketSpec{Request: spec}}))
		}
		if a, b := m.reply[100], m.reply[101]; a.Number == 0 || a.Number != b.Number || !slices.Contains(m.log, "name") {
			t.Errorf("%+v, %+v, %v", a, b, m.log)
		}
	})
	t.Run("a socket that a worker sends is shared by name and address", func(t *testing.T) {
		m := newMaster(t)
		m.worker(1, 0)
		m.worker(2, 0)
		r := tcp("127.0.0.1:90")
		r.Name = "own"
		m.do(m.s.listen(pendingRequest{worker: 1, owner: "web", seq: 50, req: socket.SocketSpec{Request: r}, socket: &socket.Bound{}}))
		if m.reply[50].Errno != 0 {
			t.Fatalf("%+v", m.reply[50])
		}
		if b := m.ask(2, netactor.Request{Name: "own"}); b.Number != m.reply[50].Number {
			t.Errorf("%+v", b)
		}
		m.do(m.s.listen(pendingRequest{worker: 2, owner: "web", seq: 51, req: socket.SocketSpec{Request: r}, socket: &socket.Bound{}}))
		if errno(m.reply[51]) != syscall.EADDRINUSE || !slices.Contains(m.log, "discard") {
			t.Errorf("a second one: %+v %v", m.reply[51], m.log)
		}
	})
}

func TestTablePackets(t *testing.T) {
	udp := func(p netactor.Policy) netactor.Request {
		return netactor.Request{Network: "udp4", Address: "127.0.0.1:0", Name: "dns", Policy: p}
	}
	pools := func(t *testing.T, p netactor.Policy) (m *master, s *socketState) {
		m = newMaster(t)
		for id := range uint64(2) {
			m.s.addWorker(netactor.Worker{ID: id + 1, Pool: "web", Slot: int(id)})
		}
		m.ask(1, udp(p))
		m.ask(2, udp(p))
		return m, m.s.sockets[1]
	}
	t.Run("N11 shared whatever the policy, and not published", func(t *testing.T) {
		for p := range netactor.Policies {
			m, s := pools(t, p)
			want := netactor.Shared
			if p == netactor.ReusePort {
				want = netactor.ReusePort
			}
			if s.req.Policy != want || s.addr.Policy != want || len(s.holders()) != 2 || slices.Contains(m.log, "publish 1") {
				t.Errorf("%v: %v, %v %v", p, s.req.Policy, s.holders(), m.log)
			}
		}
	})
	t.Run("N134 the number of port 0, but not for connections", func(t *testing.T) {
		m, s := pools(t, netactor.Shared)
		r := netactor.Request{Network: "udp4", Address: s.addr.Address}
		if found, _ := m.s.find(pendingRequest{worker: 1, owner: "web", req: socket.SocketSpec{Request: r}}); found != s {
			t.Errorf("%+v is %+v", r, found)
		}
		r.Network = "tcp4"
		if found, _ := m.s.find(pendingRequest{worker: 1, owner: "web", req: socket.SocketSpec{Request: r}}); found != nil {
			t.Errorf("%+v is %+v", r, found)
		}
	})
	t.Run("a socket of the other kind is refused, and stays as it is", func(t *testing.T) {
		m, s := pools(t, netactor.RoundRobin)
		m.worker(3, 0)
		if e := errno(m.ask(3, netactor.Request{Name: "dns"})); e != syscall.EPROTOTYPE {
			t.Errorf("by name: %v", e)
		}
		if e := errno(m.ask(3, netactor.Request{FD: 7})); e != 0 {
			t.Errorf("a listener by number: %v", e)
		}
		m.worker(4, 0)
		if e := errno(m.ask(4, netactor.Request{FD: 7, Packet: true})); e != syscall.EINVAL {
			t.Errorf("by number: %v", e)
		}
		if len(s.holders()) != 2 {
			t.Errorf("holders %v", s.holders())
		}
	})
	t.Run("the first asker's mistake leaves no socket", func(t *testing.T) {
		m := newMaster(t)
		m.worker(1, 0)
		if e := errno(m.ask(1, netactor.Request{FD: 7, Packet: true})); e != syscall.EINVAL || len(m.s.keys) != 0 || len(m.closed) != 1 {
			t.Errorf("%v, keys %v, closed %v", e, m.s.keys, m.closed)
		}
	})
	t.Run("no pause", func(t *testing.T) {
		m, s := pools(t, netactor.Shared)
		if out, ok := m.s.pause(1, true); ok || out != nil || s.paused {
			t.Error("paused")
		}
	})
	t.Run("one that was shut down is taken from the workers, and kept for them", func(t *testing.T) {
		m, s := pools(t, netactor.Shared)
		m.do(m.s.evict(1, 0))
		if !slices.Equal(m.log[len(m.log)-2:], []string{"tell 1 of 1", "tell 2 of 1"}) || len(s.holders()) != 0 || len(m.closed) != 0 {
			t.Errorf("%v, %v", m.log, s.holders())
		}
		m.do(m.s.closed(1, 1)) // its word that came too late
		if r := m.ask(1, udp(netactor.Shared)); r.Number != 1 {
			t.Errorf("asked again: %+v", r)
		}
		m.do(m.s.removeWorker(2, false))
		m.worker(3, 0)
		if r := m.ask(3, udp(netactor.Shared)); r.Number != 1 || s.owners["web"].vacancies != 0 {
			t.Errorf("the replacement: %+v, %d vacancies", r, s.owners["web"].vacancies)
		}
		m.do(m.s.closed(1, 1))
		m.do(m.s.closed(3, 1))
		if !slices.Equal(m.closed, []uint64{1}) {
			t.Errorf("closed %v", m.closed)
		}
	})
	for name, leave := range map[string]func(*master, uint64){
		"closed":             func(m *master, id uint64) { m.do(m.s.closed(id, 1)) },
		"given up":           func(m *master, id uint64) { m.do(m.s.giveUp(id, id)) },
		"left by who retire": func(m *master, id uint64) { m.do(m.s.removeWorker(id, true)) },
	} {
		t.Run("one that was shut down, and then "+name+", is nobody's", func(t *testing.T) {
			for _, p := range []netactor.Policy{netactor.Shared, netactor.ReusePort} {
				m, s := pools(t, p)
				for id := range uint64(2) {
					m.do(m.s.evict(1, s.groupIndexOf(id+1)))
				}
				leave(m, 1)
				if len(m.closed) != 0 || p == netactor.ReusePort && len(s.group) != 1 {
					t.Errorf("%v: closed %v, %d members, while 2 may ask again", p, m.closed, len(s.group))
				}
				leave(m, 2)
				if !slices.Equal(m.closed, []uint64{1}) {
					t.Errorf("%v: owned by %+v", p, s.owners["web"])
				}
			}
		})
	}
	t.Run("with ReusePort only those of the member", func(t *testing.T) {
		m, s := pools(t, netactor.ReusePort)
		m.do(m.s.evict(1, s.groupIndexOf(2)))
		if !slices.Equal(s.holders(), []uint64{1}) || len(s.group) != 2 {
			t.Errorf("holders %v, %d members", s.holders(), len(s.group))
		}
	})
	t.Run("with ReusePort who asks again has the member it had, with a slot or without", func(t *testing.T) {
		m, s := pools(t, netactor.ReusePort)
		m.s.addWorker(netactor.Worker{ID: 3, Pool: "web", Slot: -1})
		for _, id := range []uint64{2, 3} {
			if id == 3 {
				m.ask(3, udp(netactor.ReusePort))
			}
			before := s.groupIndexOf(id)
			m.do(m.s.evict(1, before))
			m.ask(id, udp(netactor.ReusePort))
			if after := s.groupIndexOf(id); after != before || len(s.group) != int(id) || !slices.Contains(s.holders(), id) {
				t.Errorf("%d: member %d, then %d, of %d; holders %v", id, before, after, len(s.group), s.holders())
			}
		}
	})
}

func TestTableLife(t *testing.T) {
	const addr = "127.0.0.1:80"
	two := func(t *testing.T) (*master, uint64) {
		m := newMaster(t)
		m.worker(1, 0)
		m.worker(2, 0)
		n := m.ask(1, tcp(addr)).Number
		m.ask(2, tcp(addr))
		return m, n
	}
	isClosed := func(m *master, n uint64) bool { return slices.Contains(m.closed, n) }

	t.Run("closed when every live worker has closed it", func(t *testing.T) {
		m, n := two(t)
		m.do(m.s.closed(1, n))
		if isClosed(m, n) {
			t.Fatal("closed while 2 has it")
		}
		m.do(m.s.closed(1, n)) // again: nothing
		m.do(m.s.closed(2, n))
		if !isClosed(m, n) {
			t.Error("still open")
		}
	})
	t.Run("X3 a death is not a close", func(t *testing.T) {
		m, n := two(t)
		m.do(m.s.removeWorker(1, false))
		m.do(m.s.removeWorker(2, false))
		if isClosed(m, n) {
			t.Fatal("closed by death")
		}
		m.worker(3, 0)
		if r := m.ask(3, tcp(addr)); r.Number != n {
			t.Fatalf("the replacement got %+v", r)
		}
		m.do(m.s.closed(3, n))
		if isClosed(m, n) {
			t.Fatal("closed though the second replacement is still to come")
		}
		m.worker(4, 0)
		m.ask(4, tcp(addr))
		m.do(m.s.closed(4, n))
		if !isClosed(m, n) {
			t.Error("still open after all have closed it")
		}
	})
	t.Run("a worker that is scaled away has closed", func(t *testing.T) {
		m, n := two(t)
		m.do(m.s.removeWorker(1, true))
		m.do(m.s.removeWorker(2, true))
		if !isClosed(m, n) {
			t.Error("still open")
		}
	})
	t.Run("closed when the pool stops, and workers that live are told", func(t *testing.T) {
		m, n := two(t)
		m.do(m.s.stopOwner("web"))
		if !isClosed(m, n) || !slices.Contains(m.log, "tell 1 of 1") || !slices.Contains(m.log, "tell 2 of 1") {
			t.Errorf("closed %v, %v", m.closed, m.log)
		}
	})
	t.Run("a spec holds it without workers", func(t *testing.T) {
		m := newMaster(t)
		m.worker(1, 0)
		m.do(m.s.listen(pendingRequest{owner: "listener/http", seq: 100, req: socket.SocketSpec{Request: tcp(addr)}}))
		n := m.ask(1, tcp(addr)).Number
		m.do(m.s.closed(1, n))
		m.do(m.s.stopOwner("web"))
		if isClosed(m, n) {
			t.Fatal("closed while the spec lives")
		}
		m.do(m.s.stopOwner("listener/http"))
		if !isClosed(m, n) {
			t.Error("still open")
		}
	})
	t.Run("a complete reload that did not ask for it closes it", func(t *testing.T) {
		m, n := two(t)
		m.worker(3, 1)
		other := m.ask(3, tcp("127.0.0.1:81")).Number
		m.do(m.s.sweep("web", 1))
		if !isClosed(m, n) || isClosed(m, other) {
			t.Errorf("closed %v", m.closed)
		}
	})
	t.Run("a failed reload that alone asked for it closes it", func(t *testing.T) {
		m, n := two(t)
		m.worker(3, 2)
		other := m.ask(3, tcp("127.0.0.1:81")).Number
		m.ask(3, tcp(addr))
		m.do(m.s.unroll("web", 2))
		if isClosed(m, n) || !isClosed(m, other) {
			t.Errorf("closed %v", m.closed)
		}
	})
	t.Run("N57 N58 N87 listen again while the old socket is still closing", func(t *testing.T) {
		m, n := two(t)
		m.do(m.s.closed(1, n))
		m.do(m.s.closed(2, n))
		// The listener process has a copy: the kernel says EADDRINUSE.
		seq := m.seq + 1
		if r := m.ask(1, tcp(addr)); r != (wire.ListenReply{}) {
			t.Fatalf("answered at once: %+v", r)
		}
		m.ask(2, tcp(addr))
		m.ack(n)
		a, b := m.reply[seq], m.reply[seq+1]
		if a.Errno != 0 || a.Number == n || a.Number != b.Number {
			t.Errorf("%+v %+v", a, b)
		}
	})
	t.Run("the same when the listener process dies instead", func(t *testing.T) {
		m, n := two(t)
		m.do(m.s.closed(1, n))
		m.do(m.s.closed(2, n))
		m.ask(1, tcp(addr))
		m.free(addr)
		m.do(m.s.detach())
		if r := m.reply[m.seq]; r.Errno != 0 || r.Number == n {
			t.Errorf("%+v", r)
		}
	})
	t.Run("the same when the old socket goes while the new one is being opened", func(t *testing.T) {
		m, n := two(t)
		m.do(m.s.closed(1, n))
		m.do(m.s.closed(2, n))
		m.seq++
		begun := m.s.listen(pendingRequest{worker: 1, owner: "web", seq: m.seq, req: socket.SocketSpec{Request: tcp(addr)}})
		m.ack(n)
		m.do(m.s.opened(begun[0].number, wire.ListenReply{Errno: int(syscall.EADDRINUSE), Call: "bind"}))
		if r := m.reply[m.seq]; r.Errno != 0 || r.Number == 0 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("a foreign socket on the port is not waited for", func(t *testing.T) {
		m := newMaster(t)
		m.worker(1, 0)
		m.busy[addr] = syscall.EADDRINUSE
		if r := m.ask(1, tcp(addr)); errno(r) != syscall.EADDRINUSE {
			t.Errorf("%+v", r)
		}
	})
	t.Run("a new listener process gets what is open", func(t *testing.T) {
		m, n := two(t)
		m.worker(3, 0)
		shared := tcp("127.0.0.1:82")
		shared.Policy = netactor.Shared
		m.ask(3, shared)
		m.do(m.s.detach())
		m.log = nil
		m.do(m.s.attach())
		if want := []string{fmt.Sprintf("publish %d", n)}; !slices.Equal(m.log, want) {
			t.Errorf("%v, want %v", m.log, want)
		}
	})
	t.Run("N104 a request that is given up holds nothing", func(t *testing.T) {
		m := newMaster(t)
		m.worker(1, 0)
		m.worker(2, 0)
		n := m.ask(1, tcp(addr)).Number
		m.do(m.s.giveUp(1, m.seq+7)) // another one
		if isClosed(m, n) {
			t.Fatal("closed")
		}
		m.do(m.s.giveUp(1, m.seq))
		if !isClosed(m, n) {
			t.Fatal("still open")
		}
		m.ask(2, tcp(addr)) // waits for the port
		m.do(m.s.giveUp(2, m.seq))
		m.ack(n)
		if len(m.s.sockets) != 0 || len(m.s.keys) != 0 {
			t.Errorf("left: %v %v", m.s.sockets, m.s.keys)
		}
	})
	t.Run("who stops while waiting is told", func(t *testing.T) {
		m, n := two(t)
		m.do(m.s.closed(1, n))
		m.do(m.s.closed(2, n))
		m.ask(1, tcp(addr))
		m.do(m.s.stopOwner("web"))
		if r := m.reply[m.seq]; errno(r) != syscall.ECANCELED {
			t.Errorf("%+v", r)
		}
		m.ack(n)
		for number, s := range m.s.sockets {
			t.Errorf("socket %d is left, phase %d", number, s.phase)
		}
	})
}

// TestGoneOfTwo: of two pools that use a listener of the tree one is gone for good: the other still
// serves it, also after a restart of the listener process. When both are gone it refuses clients.
func TestGoneOfTwo(t *testing.T) {
	m := newMaster(t)
	m.do(m.s.listen(pendingRequest{owner: "front", seq: 1, req: socket.SocketSpec{Request: tcp("127.0.0.1:80")}}))
	for id, pool := range []string{"a", "b"} {
		worker := uint64(id) + 1
		m.s.addWorker(netactor.Worker{ID: worker, Pool: pool})
		m.do(m.s.listen(pendingRequest{worker: worker, owner: pool, seq: worker + 1, req: socket.SocketSpec{Request: tcp("127.0.0.1:80")}}))
	}
	m.do(m.s.removeWorker(1, false))
	out, refusing := m.s.gone("a")
	m.do(out)
	m.log = nil
	m.do(append(m.s.detach(), m.s.attach()...))
	if s := m.s.sockets[1]; s.refusing || refusing != nil || !slices.Equal(m.log, []string{"publish 1"}) {
		t.Errorf("one is gone: refusing %v, %q, %q", s.refusing, refusing, m.log)
	}
	m.do(m.s.removeWorker(2, false))
	if _, refusing = m.s.gone("b"); !m.s.sockets[1].refusing || len(refusing) != 1 {
		t.Errorf("both are gone: refusing %v, %q", m.s.sockets[1].refusing, refusing)
	}
}

// A reload: the new worker of a slot gets the socket that the old one has, so that nothing is lost
// when the old worker ends.
func TestReusePortReload(t *testing.T) {
	m := newMaster(t)
	m.s.addWorker(netactor.Worker{ID: 1, Pool: "web", Slot: 0, Generation: 1})
	m.s.addWorker(netactor.Worker{ID: 2, Pool: "web", Slot: 1, Generation: 1})
	r := tcp("127.0.0.1:80")
	r.Policy = netactor.ReusePort
	m.ask(1, r)
	m.ask(2, r)
	m.s.addWorker(netactor.Worker{ID: 3, Pool: "web", Slot: 0, Generation: 2})
	number := m.ask(3, r).Number
	s := m.s.sockets[number]
	if len(s.group) != 2 || s.groupIndexOf(3) != s.groupIndexOf(1) || s.groupIndexOf(2) == s.groupIndexOf(1) {
		t.Fatalf("members %+v", s.group)
	}
	for _, e := range m.s.closed(1, number) {
		if e.kind == doRetire {
			t.Error("the old worker took the socket along")
		}
	}
	if len(s.group) != 2 {
		t.Errorf("%d members", len(s.group))
	}
}

// One worker cannot use up the master's descriptors: beyond maxSockets it gets EMFILE and other
// workers go on; after a close it may open another socket.
func TestTooManySockets(t *testing.T) {
	m := newMaster(t)
	m.worker(1, 0)
	m.worker(2, 0)
	for i := range maxSockets {
		if r := m.ask(1, tcp(fmt.Sprintf("127.0.0.1:%d", i+1))); r.Errno != 0 {
			t.Fatalf("socket %d: %v", i, errno(r))
		}
	}
	if r := m.ask(1, tcp("127.0.0.1:50000")); errno(r) != syscall.EMFILE || r.Call != "socket" {
		t.Errorf("one too many: %v", errno(r))
	}
	if r := m.ask(1, netactor.Request{Name: "x", Wait: true}); errno(r) != syscall.EMFILE {
		t.Errorf("a wait too many: %v", errno(r))
	}
	if r := m.ask(2, tcp("127.0.0.1:50000")); r.Errno != 0 {
		t.Errorf("another worker: %v", errno(r))
	}
	m.do(m.s.closed(1, 1))
	if r := m.ask(1, tcp("127.0.0.1:50001")); r.Errno != 0 {
		t.Errorf("after a close: %v", errno(r))
	}
}
