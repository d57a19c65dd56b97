package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/socket"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// Every worker may have the sockets of the tree's listeners, by name and by address, open yet or
// not; and no socket that the workers of another pool have asked for.
func TestRulesOfTree(t *testing.T) {
	m := newMaster(t)
	m.s.specs = resolvedSpecs([]netactor.Request{
		{Name: "http", Network: "tcp", Address: "127.0.0.1:80"},
		{Name: "later", Network: "tcp", Address: ":81"},
		{Name: "elsewhere", Network: "tcp", Address: "a.host:82"},
		{Name: "given", FD: 7},
	})
	m.do(m.s.listen(pendingRequest{owner: "http", seq: 1000, req: socket.SocketSpec{Request: netactor.Request{Name: "http", Network: "tcp4", Address: "127.0.0.1:80"}}}))
	m.do(m.s.listen(pendingRequest{owner: "elsewhere", seq: 1001, req: socket.SocketSpec{Request: netactor.Request{Name: "elsewhere", Network: "tcp4", Address: "10.0.0.9:82"}}}))
	var id uint64
	asks := func(rules *netactor.ListenRules, r netactor.Request) wire.ListenReply {
		id++
		m.s.addWorker(netactor.Worker{ID: id, Pool: "web"})
		m.do(m.s.listen(pendingRequest{worker: id, owner: "web", seq: id, req: socket.SocketSpec{Request: r}, rules: rules}))
		return m.reply[id]
	}
	if r := asks(nil, netactor.Request{Name: "inner", Network: "tcp4", Address: "127.0.0.1:9000"}); r.Errno != 0 {
		t.Fatal(r)
	}
	none := &netactor.ListenRules{None: true}
	for _, tt := range []struct {
		name   string
		rules  *netactor.ListenRules
		r      netactor.Request
		errno  syscall.Errno
		denied string
	}{
		{"by name", none, netactor.Request{Name: "http"}, 0, ""},
		{"by address", none, tcp("127.0.0.1:80"), 0, ""},
		{"by both", none, netactor.Request{Name: "http", Network: "tcp4", Address: "127.0.0.1:80"}, 0, ""},
		{"by an address that was looked up", none, tcp("10.0.0.9:82"), 0, ""},
		{"before it is open", none, netactor.Request{Network: "tcp", Address: "[::]:81"}, 0, ""},
		{"a descriptor of the tree's", none, netactor.Request{FD: 7}, 0, ""},
		{"no listener of that name", none, netactor.Request{Name: "other"}, syscall.ENOENT, ""},
		{"another port", none, tcp("127.0.0.1:83"), syscall.EACCES, "tcp4 127.0.0.1:83"},
		{"a second one", none, netactor.Request{Network: "tcp4", Address: "127.0.0.1:80", Ordinal: 1}, syscall.EACCES, "tcp4 127.0.0.1:80"},
		{"a descriptor", none, netactor.Request{FD: 8}, syscall.EACCES, "descriptor 8 of the master"},
		{"another pool's, by name", none, netactor.Request{Name: "inner"}, syscall.EACCES, `listener "inner"`},
		{"another pool's, by address", none, tcp("127.0.0.1:9000"), syscall.EACCES, "tcp4 127.0.0.1:9000"},
		{"another pool's that a rule allows", &netactor.ListenRules{Allow: []netactor.ListenRule{{Network: "tcp", Ports: "9000"}}}, netactor.Request{Name: "inner"}, 0, ""},
		{"a name of the tree's for something else", nil, netactor.Request{Name: "later", Network: "tcp4", Address: "127.0.0.1:99"}, syscall.EADDRINUSE, ""},
		{
			"the tree's, too early with an option of the tree's", none,
			netactor.Request{Network: "tcp", Address: "[::]:81", Ordinal: 2, Options: netactor.SocketOptions{FreeBind: true}},
			syscall.EACCES, "tcp [::]:81 with FreeBind or Transparent",
		},
	} {
		if r := asks(tt.rules, tt.r); syscall.Errno(r.Errno) != tt.errno || r.Denied != tt.denied {
			t.Errorf("%s: %v, denied %q", tt.name, syscall.Errno(r.Errno), r.Denied)
		}
	}
	// A request that waits for a name gets the tree's socket, and no other.
	m.do(m.s.listen(pendingRequest{worker: id, owner: "web", seq: 2000, req: socket.SocketSpec{Request: netactor.Request{Name: "awaited", Wait: true}}, rules: none}))
	if r := asks(nil, netactor.Request{Name: "awaited", Network: "tcp4", Address: "127.0.0.1:9001"}); r.Errno != 0 {
		t.Fatal(r)
	}
	if r := m.reply[2000]; r.Denied == "" {
		t.Errorf("waited for a name: %+v", r)
	}
	err := wire.ListenReply{Errno: int(syscall.EACCES), Denied: "tcp4 127.0.0.1:83"}.Err("tcp", nil)
	if !errors.Is(err, netactor.ErrListenDenied) || !errors.Is(err, syscall.EACCES) || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "Pool.Listen") {
		t.Error(err)
	}
}

// TestSpecFirstAskedByWorker: a worker that asks for a listener of the tree before that is open
// gets it with the tree's settings, not with the worker's; so do other workers, by its name and
// address.
func TestSpecFirstAskedByWorker(t *testing.T) {
	m := newMaster(t)
	spec := netactor.Request{Name: "admin", Network: "unix", Address: "/run/admin", Mode: 0o600, Policy: netactor.RoundRobin, Credentials: true, Backlog: 5, Limits: netactor.Limits{PerWorker: 7}}
	m.s.specs = resolvedSpecs([]netactor.Request{spec})
	none := &netactor.ListenRules{None: true}
	for i, rules := range []*netactor.ListenRules{none, none, nil} {
		m.s.addWorker(netactor.Worker{ID: uint64(i + 1), Pool: fmt.Sprint(i)})
		r := netactor.Request{Network: "unix", Address: "/run/admin", Mode: 0o777, Policy: netactor.Shared}
		if i == 1 {
			r = netactor.Request{Name: "admin"}
		}
		effects := m.s.listen(pendingRequest{worker: uint64(i + 1), owner: fmt.Sprint(i), seq: uint64(i + 1), req: socket.SocketSpec{Request: r}, rules: rules})
		if i == 0 && (len(effects) != 1 || effects[0].kind != doOpen || effects[0].req.Request != spec) {
			t.Errorf("asked is %+v, want to open %+v", effects, spec)
		}
		m.do(effects)
		if r := m.reply[uint64(i+1)]; r.Errno != 0 || r.Number != 1 || r.Policy != netactor.RoundRobin {
			t.Errorf("worker %d is told %+v", i+1, r)
		}
	}
	m.do(m.s.listen(pendingRequest{owner: "admin", seq: 1000, req: socket.SocketSpec{Request: spec}}))
	if r := m.reply[1000]; r.Errno != 0 || r.Number != 1 {
		t.Errorf("the tree is told %+v", r)
	}
}

// TestAllowedWhilePending: a rule that allows an address also allows a request by name while the
// socket is being opened.
func TestAllowedWhilePending(t *testing.T) {
	m := newMaster(t)
	rules := &netactor.ListenRules{Allow: []netactor.ListenRule{{Network: "tcp", Address: "127.0.0.1", Ports: "9000"}}}
	for id := range uint64(2) {
		m.s.addWorker(netactor.Worker{ID: id + 1, Pool: "web"})
	}
	effects := m.s.listen(pendingRequest{worker: 1, owner: "other", seq: 1, req: socket.SocketSpec{Request: netactor.Request{Name: "inner", Network: "tcp4", Address: "127.0.0.1:9000"}}})
	m.do(m.s.listen(pendingRequest{worker: 2, owner: "web", seq: 2, req: socket.SocketSpec{Request: netactor.Request{Name: "inner"}}, rules: rules}))
	m.do(effects)
	if r := m.reply[2]; r.Errno != 0 || r.Number != 1 {
		t.Errorf("its reply is %+v", r)
	}
}

// TestOpeningBound: a pool whose Unix sockets do not open, because a file system does not answer,
// gets EAGAIN beyond a bound; other pools do not.
func TestOpeningBound(t *testing.T) {
	m := newMaster(t)
	m.worker(1, 0)
	m.s.addWorker(netactor.Worker{ID: 2, Pool: "other"})
	at := func(worker uint64, owner string, i int) []effect {
		m.seq++
		return m.s.listen(pendingRequest{worker: worker, owner: owner, seq: m.seq, req: socket.SocketSpec{Request: netactor.Request{Network: "unix", Address: fmt.Sprint("/run/", i)}}})
	}
	var open []effect
	for i := range maxOpening {
		open = append(open, at(1, "web", i)...)
	}
	if m.do(at(1, "web", maxOpening)); errno(m.reply[m.seq]) != syscall.EAGAIN {
		t.Errorf("one more: %+v", m.reply[m.seq])
	}
	if e := at(2, "other", maxOpening); len(e) != 1 || e[0].kind != doOpen {
		t.Errorf("another pool's: %+v", e)
	}
	m.do(open)
	if m.do(at(1, "web", maxOpening+1)); m.reply[m.seq].Errno != 0 {
		t.Errorf("once they are open: %+v", m.reply[m.seq])
	}
}
