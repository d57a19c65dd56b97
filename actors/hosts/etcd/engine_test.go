package etcd_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/etcd"
	"github.com/coppice-go/coppice/actors/hosts/hoststest"
)

// freePorts returns ports of 127.0.0.1 that were free a moment ago.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close() // all are held until the last is known
		ports = append(ports, ln.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// shortDir is a directory whose path is short enough for a socket in it.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "etcd") //nolint:usetesting // t.TempDir has the test's name in its path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// openSingle starts an etcd of one seat in this process. Another port is tried if one is taken.
func openSingle(t *testing.T, dir string) hosts.Engine {
	t.Helper()
	for {
		x := etcd.Embedded{Dir: dir, Seats: map[string]string{"a": fmt.Sprintf("http://127.0.0.1:%d", freePorts(t, 1)[0])}}
		e, err := x.Quick().Open(t.Context(), "a")
		if err != nil && strings.Contains(err.Error(), "address already in use") {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
}

// TestEngine: an embedded etcd, with a second client by its socket, holds what an engine must, also
// after it was closed and opened again.
func TestEngine(t *testing.T) {
	t.Parallel() // it waits for leases
	dir := shortDir(t)
	e := openSingle(t, dir)
	if _, err := e.Commit(t.Context(), hosts.Txn{Then: []hosts.Op{{Key: "kept", Value: []byte("1")}}}); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.List(t.Context(), ""); !errors.Is(err, hosts.ErrUnavailable) {
		t.Errorf("list after the close: %v", err)
	}
	e = openSingle(t, dir)
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	if l, err := e.List(t.Context(), "kept"); err != nil || len(l.Entries) != 1 {
		t.Errorf("after a start anew: %+v, %v", l, err)
	}
	second, err := etcd.External{Endpoints: []string{"unix://" + filepath.Join(dir, "client.sock")}}.Open(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	hoststest.TestEngine(t, []hosts.Engine{e, second}, time.Second)
}

// TestBadSpecs: what cannot be used is named before anything is started.
func TestBadSpecs(t *testing.T) {
	one := map[string]string{"a": "http://127.0.0.1:1"}
	three := func(b string) map[string]string {
		return map[string]string{"a": "https://10.0.0.1:1", "b": b, "c": "https://10.0.0.3:1"}
	}
	files := hosts.TLS{Cert: "a.pem", Key: "a.key", CA: "ca.pem"}
	for _, row := range []struct {
		want string
		spec hosts.EngineSpec
	}{
		{"Dir: none", etcd.Embedded{Seats: one}},
		{"host \"a\" is none of", etcd.Embedded{Dir: "d", Seats: map[string]string{"b": "http://127.0.0.1:1"}}},
		{"two: when either fails", etcd.Embedded{Dir: "d", Seats: map[string]string{"a": "http://127.0.0.1:1", "b": "http://127.0.0.1:2"}}},
		{"4: take 1, 3, 5 or 7", etcd.Embedded{Dir: "d", Seats: map[string]string{"a": "unix://a:80", "b": "unix://b:80", "c": "unix://c:80", "d": "unix://d:80"}}},
		{"needs TLS", etcd.Embedded{Dir: "d", Seats: three("https://10.0.0.2:1")}},
		{"anybody could join", etcd.Embedded{Dir: "d", Seats: three("http://10.0.0.2:1"), TLS: files}},
		{"anybody could join", etcd.Embedded{Dir: "d", Seats: three("http://b:1"), TLS: files}},
		{"has no port", etcd.Embedded{Dir: "d", Seats: three("https://10.0.0.2"), TLS: files}},
		{"none of http, https, unix", etcd.Embedded{Dir: "d", Seats: three("tcp://10.0.0.2:1"), TLS: files}},
		{"both or neither", etcd.Embedded{Dir: "d", Seats: one, TLS: hosts.TLS{Cert: "a.pem"}}},
		{"5 to 50 Ticks", etcd.Embedded{Dir: "d", Seats: one, Tick: time.Second, Election: 2 * time.Second}},
		{"none of debug", etcd.Embedded{Dir: "d", Seats: one, Log: "loud"}},
		{"longer than a Unix socket", etcd.Embedded{Dir: "/" + strings.Repeat("x", 120), Seats: one}},
		{"Endpoints: none", etcd.External{}},
		{"both or neither", etcd.External{Endpoints: []string{"https://e:1"}, TLS: hosts.TLS{Key: "a.key"}}},
		{"External.TLS", etcd.External{Endpoints: []string{"https://e:1"}, TLS: hosts.TLS{CA: filepath.Join(t.TempDir(), "none.pem")}}},
	} {
		e, err := row.spec.Open(t.Context(), "a")
		if err == nil {
			_ = e.Close()
		}
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", row.want, err)
		}
	}
}
