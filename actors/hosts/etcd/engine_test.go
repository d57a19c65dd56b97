package etcd_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/etcd"
	"github.com/coppice-go/coppice/actors/hosts/hoststest"
)

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

// openSingle starts an etcd of one seat in this process. close ends it.
func openSingle(t *testing.T, x etcd.Embedded) (e hosts.Engine, end func()) {
	t.Helper()
	stop, err := x.Quick().Start("a")
	if err != nil {
		t.Fatal(err)
	}
	if e, err = x.Open("a"); err != nil {
		t.Fatal(err)
	}
	return e, func() {
		if err := errors.Join(e.Close(), stop()); err != nil {
			t.Error(err)
		}
	}
}

// TestEngine: an embedded etcd, with a second client, holds what an engine must, also after its
// member was ended and started again, which its clients outlive.
func TestEngine(t *testing.T) {
	t.Parallel() // it waits for leases
	x := etcd.Embedded{Dir: shortDir(t), Seats: []string{"a"}}
	second, err := x.Open("b") // before there is a member
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	e, end := openSingle(t, x)
	if _, err := e.Commit(t.Context(), hosts.Txn{Then: []hosts.Op{{Key: "kept", Value: []byte("1")}}}); err != nil {
		t.Fatal(err)
	}
	end()
	if _, err := e.List(t.Context(), ""); !errors.Is(err, hosts.ErrUnavailable) {
		t.Errorf("list after the close: %v", err)
	}
	e, end = openSingle(t, x)
	defer end()
	if l, err := e.List(t.Context(), "kept"); err != nil || len(l.Entries) != 1 {
		t.Errorf("after a start anew: %+v, %v", l, err)
	}
	hoststest.TestEngine(t, []hosts.Engine{e, second}, time.Second)
}

// TestBadSpecs: what cannot be used is named before anything is started.
func TestBadSpecs(t *testing.T) {
	one := []string{"a"}
	for _, row := range []struct {
		want string
		spec hosts.EngineSpec
	}{
		{"Dir: none", etcd.Embedded{Seats: one}},
		{"two: when either fails", etcd.Embedded{Dir: "d", Seats: []string{"a", "b"}}},
		{"4: take 1, 3, 5 or 7", etcd.Embedded{Dir: "d", Seats: []string{"a", "b", "c", "d"}}},
		{"0: take 1, 3, 5 or 7", etcd.Embedded{Dir: "d"}},
		{"cannot be the name of a host", etcd.Embedded{Dir: "d", Seats: []string{"a/b"}}},
		{"\"b\": twice", etcd.Embedded{Dir: "d", Seats: []string{"a", "b", "b"}}},
		{"5 to 50 Ticks", etcd.Embedded{Dir: "d", Seats: one, Tick: time.Second, Election: 2 * time.Second}},
		{"none of debug", etcd.Embedded{Dir: "d", Seats: one, Log: "loud"}},
		{"longer than a Unix socket", etcd.Embedded{Dir: "/" + strings.Repeat("x", 120), Seats: one}},
		{"Endpoints: none", etcd.External{}},
		{"both or neither", etcd.External{Endpoints: []string{"https://e:1"}, TLS: hosts.TLS{Key: "a.key"}}},
		{"External.TLS", etcd.External{Endpoints: []string{"https://e:1"}, TLS: hosts.TLS{CA: filepath.Join(t.TempDir(), "none.pem")}}},
	} {
		e, err := row.spec.Open("a")
		if err == nil {
			_ = e.Close()
		}
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", row.want, err)
		}
	}
}
