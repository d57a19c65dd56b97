//go:build linux

package etcd_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/etcd"
	"github.com/coppice-go/coppice/actors/hosts/seats"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// answers waits until an engine has put an entry.
func answers(t *testing.T, what string, e hosts.Engine) {
	t.Helper()
	runtimetest.Eventually(t, what, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := e.Commit(ctx, hosts.Txn{Then: []hosts.Op{{Key: "answers", Value: []byte(what)}}})
		return err == nil
	})
}

// lose takes the state of a seat whose member has ended.
func (m *members) lose(host string) {
	m.t.Helper()
	dir := filepath.Join(m.dir, host)
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "member")), os.Remove(filepath.Join(dir, "seat.json"))); err != nil {
		m.t.Fatal(err)
	}
}

// await waits until a member has logged something.
func (m *members) await(text string) {
	m.t.Helper()
	runtimetest.Eventually(m.t, "a member says "+text, func() bool { return strings.Contains(m.said.String(), text) })
}

func (m *members) replace(asked, host string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	if err := seats.Replace(ctx, filepath.Join(m.dir, asked), host); err != nil {
		m.t.Fatal(err)
	}
}

// TestSeatReplaced: a seat that has lost its directory says so, and has a vote again when it is
// replaced. When a majority is lost, the last seat becomes a new engine, whose fences are above
// those of the former one, and to which one with an empty directory comes by being replaced; one
// with that of the former engine says that it has that.
func TestSeatReplaced(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three processes of etcd")
	}
	t.Parallel() // it waits for elections
	m := newMembers(t)
	dir := func(host string) string { return filepath.Join(m.dir, host) }
	engines := make(map[string]hosts.Engine)
	for _, host := range seatHosts {
		e, err := m.spec(host).Open(host)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		engines[host] = e
	}
	for host, e := range engines {
		answers(t, "the member of "+host, e)
	}
	var guard hosts.Guard
	before := hold(t, engines["a"], "a")
	if err := guard.Check(before); err != nil {
		t.Error(err)
	}
	if err := seats.Replace(t.Context(), dir("a"), "d"); err == nil || !strings.Contains(err.Error(), "it has no seat; those with one are a, b, c") {
		t.Errorf("of a host without a seat: %v", err)
	}

	m.kill("b")
	m.lose("b")
	m.start("b")
	m.await("is empty, and the seat of host")
	m.replace("a", "b")
	answers(t, "b after it was replaced", engines["b"])
	m.kill("c")
	answers(t, "b and a without c", engines["b"])

	m.kill("b")
	m.lose("b")
	if err := seats.Recover(dir("a"), ""); err != nil {
		t.Fatal(err)
	}
	answers(t, "a alone", engines["a"])
	after := hold(t, engines["a"], "a")
	if after.Number <= before.Number {
		t.Errorf("fence %d in the new engine, %d in the former", after.Number, before.Number)
	}
	if err := guard.Check(after); err != nil {
		t.Error(err)
	}
	if err := guard.Check(before); !errors.Is(err, hosts.ErrStale) {
		t.Errorf("the former engine's fence: %v", err)
	}
	m.start("b")
	m.await("has no member in the engine that the seat of host \\\"a\\\" is in")
	m.replace("a", "b")
	answers(t, "b in the new engine", engines["b"])
	m.start("c") // which has the former engine's state
	m.await("c is of engine ")
	if err := seats.Recover(dir("c"), ""); err == nil || !strings.Contains(err.Error(), "is in another engine, which was recovered") {
		t.Errorf("a second seat is recovered: %v", err)
	}
	if last := hold(t, engines["b"], "b"); last.Number <= after.Number {
		t.Errorf("fence %d after %d", last.Number, after.Number)
	}
}

// TestRecover: an engine that is made anew has what a snapshot has, or what its directory has, or
// nothing, and fences above those of all before.
func TestRecover(t *testing.T) {
	x := etcd.Embedded{Dir: shortDir(t), Seats: []string{"a"}}
	state := filepath.Join(x.Dir, "member")
	file := filepath.Join(t.TempDir(), "snapshot")
	var guard hosts.Guard
	last := hosts.Fence{}
	// round starts the member, and checks that it has an entry, or none.
	round := func(what, value string, during func(e hosts.Engine)) {
		t.Helper()
		e, end := openSingle(t, x)
		defer end()
		l, err := e.List(t.Context(), "kept")
		if err != nil || value == "" && len(l.Entries) != 0 || value != "" && (len(l.Entries) != 1 || string(l.Entries[0].Value) != value) {
			t.Errorf("%s: %v, %v, want %q", what, l, err, value)
		}
		f := hold(t, e, "a")
		if err := guard.Check(f); err != nil {
			t.Error(err)
		}
		if last.Number != 0 {
			if err := guard.Check(last); !errors.Is(err, hosts.ErrStale) {
				t.Errorf("%s: fence %v after %v: %v", what, f, last, err)
			}
		}
		last = f
		during(e)
	}
	put := func(e hosts.Engine, value string) {
		t.Helper()
		if _, err := e.Commit(t.Context(), hosts.Txn{Then: []hosts.Op{{Key: "kept", Value: []byte(value)}}}); err != nil {
			t.Fatal(err)
		}
	}
	recover := func(snapshot string) {
		t.Helper()
		if err := seats.Recover(x.Dir, snapshot); err != nil {
			t.Fatal(err)
		}
	}
	round("a first start", "", func(e hosts.Engine) {
		put(e, "1")
		if err := etcd.Snapshot(t.Context(), e, file); err != nil {
			t.Fatal(err)
		}
		put(e, "2")
		if err := seats.Recover(x.Dir, ""); err == nil || !strings.Contains(err.Error(), "nothing is lost") {
			t.Errorf("of an engine that answers: %v", err)
		}
	})
	refused := func(what, want, snapshot string) {
		t.Helper()
		if err := seats.Recover(x.Dir, snapshot); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	recover("")
	round("of its directory", "2", func(hosts.Engine) {})
	recover("")
	round("of its directory once more", "2", func(hosts.Engine) {})
	recover(file)
	refused("asked for once more", "already", "")
	round("of a snapshot", "1", func(hosts.Engine) {})
	round("once more, without being asked to", "1", func(hosts.Engine) {})
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	recover("")
	round("of nothing", "", func(hosts.Engine) {})

	// Ended between any two steps, it begins again where it was.
	recover("")
	e, end := openSingle(t, x)
	put(e, "3")
	end()
	recover("")
	if err := x.Interrupted("a"); err != nil {
		t.Fatal(err)
	}
	round("after an interruption", "3", func(hosts.Engine) {})
	// What one that was asked for before has left changes nothing.
	if err := os.Mkdir(filepath.Join(x.Dir, seats.Recovering), 0o700); err != nil {
		t.Fatal(err)
	}
	recover(file)
	round("after one that was given up", "1", func(hosts.Engine) {})
	// A file that is no snapshot, or is damaged, changes nothing.
	snapshot, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	snapshot[len(snapshot)/2] ^= 1
	for want, text := range map[string][]byte{"no checksum": []byte("no snapshot, but longer than a checksum of it would be"), "is damaged": snapshot} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		refused("a file that is no snapshot", want, file)
	}
	round("as it was", "1", func(hosts.Engine) {})
	if err := seats.Recover(filepath.Join(x.Dir, "none"), ""); err == nil {
		t.Error("in a directory that is not there")
	}
}
