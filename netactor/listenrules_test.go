package netactor

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

func TestListenRules(t *testing.T) {
	for _, tt := range []struct {
		name string
		rule ListenRule
		r    Request
		want bool
	}{
		{"port in the list", ListenRule{Network: "tcp", Ports: "443,8000-8099"}, Request{Network: "tcp", Address: "[::]:8099"}, true},
		{"port beside the list", ListenRule{Network: "tcp", Ports: "443,8000-8099"}, Request{Network: "tcp", Address: "[::]:8100"}, false},
		{"port of the kernel's choice is not any port", ListenRule{Network: "tcp", Ports: "1-65535"}, Request{Network: "tcp", Address: "[::]:0"}, false},
		{"port of the kernel's choice", ListenRule{Network: "tcp", Ports: "0"}, Request{Network: "tcp", Address: "[::]:0"}, true},
		{"tcp is both", ListenRule{Network: "tcp"}, Request{Network: "tcp6", Address: "[::1]:80"}, true},
		{"tcp4 is one", ListenRule{Network: "tcp4"}, Request{Network: "tcp6", Address: "[::1]:80"}, false},
		{"tcp is not udp", ListenRule{Network: "tcp"}, Request{Network: "udp4", Address: "127.0.0.1:80"}, false},
		{"address", ListenRule{Network: "tcp", Address: "127.0.0.1"}, Request{Network: "tcp4", Address: "127.0.0.1:80"}, true},
		{"another address", ListenRule{Network: "tcp", Address: "127.0.0.1"}, Request{Network: "tcp4", Address: "127.0.0.2:80"}, false},
		{"range", ListenRule{Network: "tcp", Address: "10.1.2.3/8"}, Request{Network: "tcp4", Address: "10.200.0.1:80"}, true},
		{"all addresses are in no range", ListenRule{Network: "tcp", Address: "10.0.0.0/8"}, Request{Network: "tcp", Address: "[::]:80"}, false},
		{"all addresses by name", ListenRule{Network: "tcp", Address: "0.0.0.0"}, Request{Network: "tcp", Address: "[::]:80"}, true},
		{"one address is not all", ListenRule{Network: "tcp", Address: "0.0.0.0"}, Request{Network: "tcp4", Address: "10.0.0.1:80"}, false},
		{"zone", ListenRule{Network: "tcp6", Address: "fe80::/10"}, Request{Network: "tcp6", Address: "[fe80::1%eth0]:80"}, true},
		{"mapped address", ListenRule{Network: "tcp6", Address: "::/0"}, Request{Network: "tcp6", Address: "[::ffff:127.0.0.1]:80"}, false},
		{"path", ListenRule{Network: "unix", Address: "/run/app.sock"}, Request{Network: "unix", Address: "/run/app.sock"}, true},
		{"path is no prefix", ListenRule{Network: "unix", Address: "/run/app"}, Request{Network: "unix", Address: "/run/app/x"}, false},
		{"path below", ListenRule{Network: "unix", Address: "/run/app/"}, Request{Network: "unix", Address: "/run/app/a/x"}, true},
		{"path beside", ListenRule{Network: "unix", Address: "/run/app/"}, Request{Network: "unix", Address: "/run/apple"}, false},
		{"path that leads out", ListenRule{Network: "unix", Address: "/run/app/"}, Request{Network: "unix", Address: "/run/app/../x"}, false},
		{"path with a zero", ListenRule{Network: "unix"}, Request{Network: "unix", Address: "/run/app/x\x00y"}, false},
		{"abstract", ListenRule{Network: "unix", Address: "@app/"}, Request{Network: "unix", Address: "@app/1"}, true},
		{"another kind of Unix socket", ListenRule{Network: "unix"}, Request{Network: "unixgram", Address: "/run/x"}, false},
		{"descriptor", ListenRule{FD: 7}, Request{FD: 7}, true},
		{"another descriptor", ListenRule{FD: 7}, Request{FD: 8}, false},
		{"a descriptor by an address", ListenRule{Network: "tcp"}, Request{FD: 7}, false},
		{"FreeBind", ListenRule{Network: "tcp"}, Request{Network: "tcp4", Address: "10.0.0.1:80", Options: SocketOptions{FreeBind: true}}, false},
		{"Transparent", ListenRule{Network: "udp"}, Request{Network: "udp4", Address: "10.0.0.1:80", Options: SocketOptions{Transparent: true}}, false},
	} {
		rs := ListenRules{Allow: []ListenRule{tt.rule}}
		if err := rs.Validate(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got := rs.Allows(tt.r); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	for _, tt := range []struct {
		rs   ListenRules
		want string
	}{
		{ListenRules{Any: true, None: true}, "more than one"},
		{ListenRules{None: true, Allow: []ListenRule{{FD: 3}}}, "more than one"},
		{ListenRules{Allow: []ListenRule{{}}}, `Allow[0] Network ""`},
		{ListenRules{Allow: []ListenRule{{Network: "tcp"}, {Network: "tcp", Address: "localhost"}}}, `Allow[1] Address "localhost"`},
		{ListenRules{Allow: []ListenRule{{Network: "tcp", Ports: "9-8"}}}, `"9-8"`},
		{ListenRules{Allow: []ListenRule{{Network: "tcp", Ports: "70000"}}}, `"70000"`},
		{ListenRules{Allow: []ListenRule{{Network: "unix", Address: "run/app"}}}, `Address "run/app"`},
		{ListenRules{Allow: []ListenRule{{Network: "unix", Address: "/x", Ports: "1"}}}, `Ports "1"`},
		{ListenRules{Allow: []ListenRule{{FD: 3, Network: "tcp"}}}, "FD 3"},
	} {
		if err := tt.rs.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %s", tt.rs, err, tt.want)
		}
	}
}

// What the tree's listeners have every worker may have, by name and by address, whether they are open yet or not;
// and nothing that another pool's workers have asked for.
func TestRulesOfTree(t *testing.T) {
	m := newMaster(t)
	m.s.specs = resolvedSpecs([]Request{
		{Name: "http", Network: "tcp", Address: "127.0.0.1:80"},
		{Name: "later", Network: "tcp", Address: ":81"},
		{Name: "elsewhere", Network: "tcp", Address: "a.host:82"},
		{Name: "given", FD: 7},
	})
	m.do(m.s.listen(pendingRequest{owner: "http", seq: 1000, req: socketSpec{Request: Request{Name: "http", Network: "tcp4", Address: "127.0.0.1:80"}}}))
	m.do(m.s.listen(pendingRequest{owner: "elsewhere", seq: 1001, req: socketSpec{Request: Request{Name: "elsewhere", Network: "tcp4", Address: "10.0.0.9:82"}}}))
	var id uint64
	asks := func(rules *ListenRules, r Request) reply {
		id++
		m.s.addWorker(Worker{ID: id, Pool: "web"})
		m.do(m.s.listen(pendingRequest{worker: id, owner: "web", seq: id, req: socketSpec{Request: r}, rules: rules}))
		return m.reply[id]
	}
	if r := asks(nil, Request{Name: "inner", Network: "tcp4", Address: "127.0.0.1:9000"}); r.Errno != 0 {
		t.Fatal(r)
	}
	none := &ListenRules{None: true}
	for _, tt := range []struct {
		name   string
		rules  *ListenRules
		r      Request
		errno  syscall.Errno
		denied string
	}{
		{"by name", none, Request{Name: "http"}, 0, ""},
		{"by address", none, tcp("127.0.0.1:80"), 0, ""},
		{"by both", none, Request{Name: "http", Network: "tcp4", Address: "127.0.0.1:80"}, 0, ""},
		{"by an address that was looked up", none, tcp("10.0.0.9:82"), 0, ""},
		{"before it is open", none, Request{Network: "tcp", Address: "[::]:81"}, 0, ""},
		{"a descriptor of the tree's", none, Request{FD: 7}, 0, ""},
		{"no listener of that name", none, Request{Name: "other"}, syscall.ENOENT, ""},
		{"another port", none, tcp("127.0.0.1:83"), syscall.EACCES, "tcp4 127.0.0.1:83"},
		{"a second one", none, Request{Network: "tcp4", Address: "127.0.0.1:80", Ordinal: 1}, syscall.EACCES, "tcp4 127.0.0.1:80"},
		{"a descriptor", none, Request{FD: 8}, syscall.EACCES, "descriptor 8 of the master"},
		{"another pool's, by name", none, Request{Name: "inner"}, syscall.EACCES, `listener "inner"`},
		{"another pool's, by address", none, tcp("127.0.0.1:9000"), syscall.EACCES, "tcp4 127.0.0.1:9000"},
		{"another pool's that a rule allows", &ListenRules{Allow: []ListenRule{{Network: "tcp", Ports: "9000"}}}, Request{Name: "inner"}, 0, ""},
		{"a name of the tree's for something else", nil, Request{Name: "later", Network: "tcp4", Address: "127.0.0.1:99"}, syscall.EADDRINUSE, ""},
		{
			"the tree's, too early with an option of the tree's", none,
			Request{Network: "tcp", Address: "[::]:81", Ordinal: 2, Options: SocketOptions{FreeBind: true}},
			syscall.EACCES, "tcp [::]:81 with FreeBind or Transparent",
		},
	} {
		if r := asks(tt.rules, tt.r); syscall.Errno(r.Errno) != tt.errno || r.Denied != tt.denied {
			t.Errorf("%s: %v, denied %q", tt.name, syscall.Errno(r.Errno), r.Denied)
		}
	}
	// One that waits for a name gets the tree's, and nobody else's.
	m.do(m.s.listen(pendingRequest{worker: id, owner: "web", seq: 2000, req: socketSpec{Request: Request{Name: "awaited", Wait: true}}, rules: none}))
	if r := asks(nil, Request{Name: "awaited", Network: "tcp4", Address: "127.0.0.1:9001"}); r.Errno != 0 {
		t.Fatal(r)
	}
	if r := m.reply[2000]; r.Denied == "" {
		t.Errorf("waited for a name: %+v", r)
	}
	err := reply{Errno: int(syscall.EACCES), Denied: "tcp4 127.0.0.1:83"}.err("tcp", nil)
	if !errors.Is(err, ErrListenDenied) || !errors.Is(err, syscall.EACCES) || !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "Pool.Listen") {
		t.Error(err)
	}
}

// TestSpecFirstAskedByWorker: a worker that asks for a listener of the tree before that is open gets it as the tree wants it, not
// as the worker does; and by its name and address so do others.
func TestSpecFirstAskedByWorker(t *testing.T) {
	m := newMaster(t)
	spec := Request{Name: "admin", Network: "unix", Address: "/run/admin", Mode: 0o600, Policy: RoundRobin, Credentials: true, Backlog: 5, Limits: Limits{PerWorker: 7}}
	m.s.specs = resolvedSpecs([]Request{spec})
	none := &ListenRules{None: true}
	for i, rules := range []*ListenRules{none, none, nil} {
		m.s.addWorker(Worker{ID: uint64(i + 1), Pool: fmt.Sprint(i)})
		r := Request{Network: "unix", Address: "/run/admin", Mode: 0o777, Policy: Shared}
		if i == 1 {
			r = Request{Name: "admin"}
		}
		effects := m.s.listen(pendingRequest{worker: uint64(i + 1), owner: fmt.Sprint(i), seq: uint64(i + 1), req: socketSpec{Request: r}, rules: rules})
		if i == 0 && (len(effects) != 1 || effects[0].kind != doOpen || effects[0].req.Request != spec) {
			t.Errorf("asked is %+v, want to open %+v", effects, spec)
		}
		m.do(effects)
		if r := m.reply[uint64(i+1)]; r.Errno != 0 || r.Number != 1 || r.Policy != RoundRobin {
			t.Errorf("worker %d is told %+v", i+1, r)
		}
	}
	m.do(m.s.listen(pendingRequest{owner: "admin", seq: 1000, req: socketSpec{Request: spec}}))
	if r := m.reply[1000]; r.Errno != 0 || r.Number != 1 {
		t.Errorf("the tree is told %+v", r)
	}
}

// TestAllowedWhilePending: a rule that allows an address allows who asks for it by name also while it is being opened.
func TestAllowedWhilePending(t *testing.T) {
	m := newMaster(t)
	rules := &ListenRules{Allow: []ListenRule{{Network: "tcp", Address: "127.0.0.1", Ports: "9000"}}}
	for id := range uint64(2) {
		m.s.addWorker(Worker{ID: id + 1, Pool: "web"})
	}
	effects := m.s.listen(pendingRequest{worker: 1, owner: "other", seq: 1, req: socketSpec{Request: Request{Name: "inner", Network: "tcp4", Address: "127.0.0.1:9000"}}})
	m.do(m.s.listen(pendingRequest{worker: 2, owner: "web", seq: 2, req: socketSpec{Request: Request{Name: "inner"}}, rules: rules}))
	m.do(effects)
	if r := m.reply[2]; r.Errno != 0 || r.Number != 1 {
		t.Errorf("it is told %+v", r)
	}
}

// TestOpeningBound: a pool whose Unix sockets are not opened, as of a file system that does not answer, gets EAGAIN beyond a bound,
// and others do not.
func TestOpeningBound(t *testing.T) {
	m := newMaster(t)
	m.worker(1, 0)
	m.s.addWorker(Worker{ID: 2, Pool: "other"})
	at := func(worker uint64, owner string, i int) []effect {
		m.seq++
		return m.s.listen(pendingRequest{worker: worker, owner: owner, seq: m.seq, req: socketSpec{Request: Request{Network: "unix", Address: fmt.Sprint("/run/", i)}}})
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
