package netactor_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/inspect"
	"github.com/coppice-go/coppice/netactor/registry"
)

// suspend suspends the master's table.
func (tr *tree) suspend() {
	tr.t.Helper()
	if err := tr.table.Suspend(testContext(tr.t)); err != nil {
		tr.t.Fatal(err)
	}
}

// replace has the suspended table go on as that of another image of the master, up to Continue.
func (tr *tree) replace() {
	tr.t.Helper()
	state, fds, err := tr.table.State()
	if err != nil {
		tr.t.Fatal(err)
	}
	next, err := registry.Restore(state, fds, tr.tableCfg)
	if err != nil {
		tr.t.Fatal(err)
	}
	inspect.Leave(tr.table)
	tr.table = next
	tr.table.Attach(tr.up[0])
	for _, w := range tr.workers {
		tr.table.AddWorker(w.Worker, w.master[0])
	}
}

// TestReplace: the table goes from image to image of the master, again and again, while clients
// come: each is served. What a worker asks for in between is answered once, by the next image. All
// sockets are the same, and their ends are those of before: a path is removed, a shutdown is
// noticed.
func TestReplace(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		file := filepath.Join(t.TempDir(), "s")
		tr := newTree(t, mem)
		a, b := tr.worker(0), tr.worker(1)
		requests := map[string]netactor.Request{
			"dispatched": loopback,
			"shared":     {Network: "tcp", Address: "127.0.0.1:0", Policy: netactor.Shared, Name: "shared"},
			"reuseport":  {Network: "tcp", Address: "127.0.0.1:0", Policy: netactor.ReusePort, Name: "group"},
			"path":       {Network: "unix", Address: file, Mode: 0o600},
		}
		addrs := make(map[string]net.Addr)
		for name, r := range requests {
			for _, w := range []*testWorker{a, b} {
				ln := w.mustListen(r)
				go serveID(ln, name)
				addrs[name] = ln.Addr()
			}
		}
		check := func() {
			t.Helper()
			for name, addr := range addrs {
				if got := ask(t, addr.Network(), addr.String()); got != name {
					t.Errorf("%s: answer %q", name, got)
				}
			}
		}
		where := func() (all string) {
			for _, s := range tr.table.Sockets()[:len(requests)] {
				all += fmt.Sprintln(s.Number, s.Name, s.Address, s.Policy, s.Owners, s.Group)
			}
			return all
		}
		wait := make(chan net.Listener, 1)
		go func() {
			ln, err := b.listen(netactor.Request{Name: "late", Wait: true})
			if err != nil {
				t.Error(err)
			}
			wait <- ln
		}()
		until(t, "the request by name", func() bool { return tr.look().Awaiting == 1 })
		for i := range 5 {
			before := where()
			tr.suspend()
			asked := make(chan net.Listener, 2)
			for _, r := range []netactor.Request{requests["dispatched"], {Network: "tcp", Address: "127.0.0.1:0", Policy: netactor.Shared, Name: fmt.Sprint("new", i)}} {
				w := tr.worker(2 + i)
				go func() {
					ln, err := w.listen(r)
					if err != nil {
						t.Error(err)
					}
					asked <- ln
				}()
			}
			check()
			until(t, "the requests", func() bool {
				asked := tr.look().Pending
				for _, s := range tr.table.Sockets() {
					if s.Address == addrs["dispatched"].String() {
						asked += len(s.Workers) - 2 - i
					}
				}
				return asked == 2
			})
			tr.replace()
			if after := where(); after != before {
				t.Errorf("the sockets are\n%s\nand were\n%s", after, before)
			}
			check()
			tr.table.Continue()
			for range 2 {
				if ln := <-asked; ln != nil {
					go serveID(ln, "dispatched")
				}
			}
			check()
		}
		if _, err := tr.table.Open(testContext(t), "spec", netactor.Request{Network: "tcp", Address: "127.0.0.1:0", Name: "late"}); err != nil {
			t.Fatal(err)
		}
		go serveID(<-wait, "late")
		if !mem {
			for _, s := range tr.table.Sockets() {
				tr.shutDown(s.Number) // is noticed by the new watcher
			}
			for name, addr := range addrs {
				until(t, name+" to serve again", func() bool { s, err := tryAsk(addr.Network(), addr.String()); return err == nil && s == name })
			}
		}
		tr.table.StopOwner("web")
		until(t, "the path to be gone", func() bool { _, err := os.Lstat(file); return errors.Is(err, os.ErrNotExist) })
	})
}

// TestReplaceGivenUp: a table that is not replaced after all goes on with what was held back.
func TestReplaceGivenUp(t *testing.T) {
	tr := newTree(t, false)
	w := tr.worker(0)
	if _, _, err := tr.table.State(); !errors.Is(err, registry.ErrNotSuspended) {
		t.Errorf("error %v", err)
	}
	tr.suspend()
	asked := make(chan net.Listener, 1)
	go func() {
		ln, err := w.listen(loopback)
		if err != nil {
			t.Error(err)
		}
		asked <- ln
	}()
	until(t, "the request", func() bool { return tr.look().Pending == 1 })
	tr.table.Continue()
	go serveID(<-asked, "a")
	if got := ask(t, "tcp", tr.table.Sockets()[0].Address); got != "a" {
		t.Errorf("answer %q", got)
	}
}
