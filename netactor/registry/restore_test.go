package registry

import (
	"bytes"
	"flag"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/socket"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

var rewrite = flag.Bool("rewrite", false, "write the goldens in testdata anew")

// replaced returns what s is after an exec.
func replaced(t testing.TB, s *tableState) *tableState {
	t.Helper()
	rules := make(map[string]*netactor.ListenRules)
	for _, asks := range s.awaitingName {
		for _, p := range asks {
			rules[p.owner] = p.rules
		}
	}
	for _, o := range s.sockets {
		for _, p := range o.waiting {
			rules[p.owner] = p.rules
		}
	}
	cfg := Config{Rules: func(owner string) netactor.ListenRules { return *rules[owner] }}
	one := New(cfg)
	one.state, one.suspended = s, true
	b, fds, err := one.State()
	if err != nil || len(fds) > 0 {
		t.Fatal(fds, err)
	}
	two, err := Restore(b, nil, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if again, _, err := two.State(); err != nil || !bytes.Equal(again, b) {
		t.Errorf("saved again, it is\n%x, not\n%x; %v", again, b, err)
	}
	two.state.specs = s.specs
	for number, o := range two.state.sockets { // for tests that hold one
		*s.sockets[number] = *o
		two.state.sockets[number] = s.sockets[number]
	}
	return two.state
}

// sample is the state of a table with a socket of each phase, a group, requests that wait, and what
// is held back.
func sample(t testing.TB) []byte {
	t.Helper()
	m := newMaster(t)
	m.worker(1, 1)
	m.worker(2, 2)
	m.ask(1, netactor.Request{Network: "tcp4", Address: "127.0.0.1:80", Name: "web", Functions: "web"})
	m.ask(2, netactor.Request{Network: "tcp4", Address: "127.0.0.1:0", Policy: netactor.ReusePort})
	m.ask(2, netactor.Request{Name: "late", Wait: true})
	closing := m.ask(1, tcp("127.0.0.1:81"))
	m.do(m.s.closed(1, closing.Number))
	m.ask(2, tcp("127.0.0.1:81"))
	m.do(m.s.removeWorker(1, false))
	table := New(Config{})
	table.state, table.suspended = m.s, true
	table.todo = table.state.listen(pendingRequest{worker: 2, owner: "web", seq: 9, req: socket.SocketSpec{Request: tcp("127.0.0.1:82")}})
	table.repairs[1] = &repairState{pause: firstRepair, armed: true}
	b, _, err := table.State()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSaved compares a saved table with testdata/saved.txt.
func TestSaved(t *testing.T) {
	text, err := cbor.Diagnose(sample(t))
	if err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(text, "{", "\n{") + "\n"
	const file = "testdata/saved.txt"
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(file); err != nil || string(want) != got {
		t.Errorf("%v; -rewrite, and read the difference. It is%s", err, got)
	}
}

// execed is a Table after an exec, which closes the descriptors of the one before.
func execed(t *testing.T, one *Table) *Table {
	t.Helper()
	if err := one.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	state, fds, err := one.State()
	if err != nil {
		t.Fatal(err)
	}
	for i, fd := range fds {
		if fds[i], err = syscall.Dup(fd); err != nil {
			t.Fatal(err)
		}
	}
	one.Close()
	two, err := Restore(state, fds, Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { two.Close() })
	return two
}

// opened opens the socket of a spec.
func opened(t *testing.T, table *Table, owner string, r netactor.Request) string {
	t.Helper()
	addr, err := table.Open(t.Context(), owner, r)
	if err != nil {
		t.Fatalf("%s: %v", owner, err)
	}
	return addr.String()
}

// reclaimed returns the address of the socket that a spec has back; "" if it has none.
func reclaimed(table *Table, owner string, r netactor.Request) string {
	if addr, ok := table.Reclaim(owner, r); ok {
		return addr.String()
	}
	return ""
}

// TestReclaim: a spec gets the socket back that it had before an exec, once and only if it still
// asks for it.
func TestReclaim(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	random := netactor.Request{Name: "web", Network: "tcp", Address: "localhost:0"}
	unnamed := netactor.Request{Network: "tcp", Address: "127.0.0.1:0"}
	unix := netactor.Request{Name: "unix", Network: "unix", Address: filepath.Join(t.TempDir(), "sock")}
	given := netactor.Request{Name: "given", FD: int(f.Fd())}
	one := New(Config{Logger: slog.New(slog.DiscardHandler)})
	web, first, second := opened(t, one, "/web", random), opened(t, one, "/a", unnamed), opened(t, one, "/b", unnamed)
	path, fd := opened(t, one, "/unix", unix), opened(t, one, "/given", given)
	two := execed(t, one)
	given.FD++ // has no meaning after the exec
	other := random
	other.Name = "other"
	for _, tt := range []struct {
		owner string
		r     netactor.Request
		want  string
	}{
		{"/none", random, ""},
		{"/web", other, ""},
		{"/web", netactor.Request{Name: "web", Network: "tcp", Address: web}, ""},
		{"/web", given, ""},
		{"/web", random, web},
		{"/web", random, ""}, // a second time
		{"/b", unnamed, second},
		{"/a", unnamed, first},
		{"/unix", unix, path},
		{"/given", random, ""},
		{"/given", given, fd},
		{"/given", given, ""},
	} {
		if got := reclaimed(two, tt.owner, tt.r); got != tt.want {
			t.Errorf("%s has %q of %+v, want %q", tt.owner, got, tt.r, tt.want)
		}
	}
	two.Continue()
	two.EndFormer()
	if n := len(two.Sockets()); n != 5 {
		t.Errorf("%d sockets are left of 5 that were claimed", n)
	}
}

// TestReclaimSettings: after an exec a socket hands over as its spec says now. What the kernel has
// of it stays, and whether it hands over.
func TestReclaimSettings(t *testing.T) {
	r := netactor.Request{Name: "web", Network: "tcp", Address: "127.0.0.1:0", Backlog: 5}
	table := New(Config{Logger: slog.New(slog.DiscardHandler)})
	opened(t, table, "/web", r)
	r.Policy, r.Park, r.Limits.Total, r.Backlog = netactor.LeastLoaded, time.Second, 7, 6
	want := r
	for range 2 {
		table = execed(t, table)
		if reclaimed(table, "/web", r) == "" {
			t.Fatalf("%v: the socket is not reclaimed", r.Policy)
		}
		s := table.state.sockets[1]
		if s.req.Policy != want.Policy || s.req.Park != want.Park || s.req.Limits != want.Limits || s.req.Backlog != 5 || s.addr.Policy != want.Policy || s.addr.Park != want.Park {
			t.Errorf("%v: %+v", r.Policy, s)
		}
		r.Policy, r.Park, r.Limits = netactor.Shared, 0, netactor.Limits{}
	}
}

// TestEndFormer: a spec that has another address after an exec gets a socket of its own, in the
// trial already. The one that it had, and that of a spec which is gone, are closed after the trial.
func TestEndFormer(t *testing.T) {
	random := netactor.Request{Name: "web", Network: "tcp", Address: "127.0.0.1:0"}
	unix := netactor.Request{Name: "unix", Network: "unix", Address: filepath.Join(t.TempDir(), "sock")}
	one := New(Config{Logger: slog.New(slog.DiscardHandler)})
	before := opened(t, one, "/web", random)
	opened(t, one, "/unix", unix)
	opened(t, one, "/gone", netactor.Request{Network: "tcp", Address: "127.0.0.1:0"})
	two := execed(t, one)
	random.Address, unix.Address = "127.0.0.2:0", unix.Address+"2"
	want := []string{opened(t, two, "/web", random), opened(t, two, "/unix", unix)}
	if conn, err := net.Dial("tcp", before); err != nil {
		t.Errorf("the former socket in the trial: %v", err)
	} else {
		conn.Close()
	}
	two.Continue()
	two.EndFormer()
	settle(two)
	if conn, err := net.Dial("tcp", before); err == nil {
		conn.Close()
		t.Error("the former socket is open after the trial")
	}
	var got []string
	for _, s := range two.Sockets() {
		got = append(got, s.Address)
	}
	if !slices.Equal(got, want) {
		t.Errorf("after the trial the sockets are %q, want %q", got, want)
	}
}

// TestRestoreErrors: a state that cannot be is an error that names the field.
func TestRestoreErrors(t *testing.T) {
	for want, change := range map[string]func(*savedTable){
		"Sockets[0]: Number 99":               func(v *savedTable) { v.Sockets[0].Number = 99 },
		"Sockets[1]: Phase 3":                 func(v *savedTable) { v.Sockets[1].Phase = closing + 1 },
		"Sockets[1]: Group is empty":          func(v *savedTable) { v.Sockets[1].Group = nil },
		"Sockets[1]: Keys: ":                  func(v *savedTable) { v.Sockets[1].Keys = v.Sockets[0].Keys },
		`Names: "x" is of socket 77`:          func(v *savedTable) { v.Names["x"] = 77 },
		"Held: socket 77/0":                   func(v *savedTable) { v.Held = []savedHeld{{Number: 77, FD: -1}} },
		"Held: socket 1/0: descriptor 3 of 0": func(v *savedTable) { v.Held = []savedHeld{{Number: 1, FD: 3}} },
		"Todo[0]: Kind 1":                     func(v *savedTable) { v.Todo[0].Kind = doOpened },
		"Todo[0]: descriptor 0 of 0":          func(v *savedTable) { v.Todo[0].FD = 0 },
	} {
		var v savedTable
		if err := decoding.Unmarshal(sample(t), &v); err != nil {
			t.Fatal(err)
		}
		change(&v)
		b, err := encoding.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(b, nil, Config{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// FuzzRestore: bytes that no State returned are an error, or a table that takes events.
func FuzzRestore(f *testing.F) {
	f.Add(sample(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := Restore(b, nil, Config{})
		if err != nil {
			return
		}
		if _, _, err := table.State(); err != nil {
			t.Error(err)
		}
		table.state.addWorker(netactor.Worker{ID: 5, Pool: "web"})
		for number := range table.state.sockets {
			table.state.pause(number, true)
			table.state.refuse(number)
			table.state.closed(2, number)
			table.state.opened(number, wire.ListenReply{Network: "tcp", Address: "127.0.0.1:83"})
			table.state.shutAcked(number)
		}
		table.state.removeWorker(2, true)
		table.state.stopOwner("web")
	})
}
