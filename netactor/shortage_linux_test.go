package netactor_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/coppice-go/coppice/netactor"
)

// A master that is out of descriptors opens, sends and watches sockets when descriptors are free
// again: it logs one line when that begins and one when it is over, and each caller of Listen
// waits.
func TestMasterOutOfDescriptors(t *testing.T) {
	for _, p := range []netactor.Policy{netactor.RoundRobin, netactor.Shared, netactor.ReusePort} {
		t.Run("to open one, "+p.String(), func(t *testing.T) {
			log := make(logLines, 100)
			tr := newTree(t, true, func(tr *tree) { tr.tableCfg.Logger = slog.New(log) })
			w := tr.worker(0)
			r := loopback
			r.Policy = p
			over := noDescriptors(t)
			listened := make(chan error, 1)
			go func() {
				ln, err := w.listen(r)
				if err == nil {
					go serveID(ln, "a")
				}
				listened <- err
			}()
			log.Next(t, "the master is short of")
			over()
			wait(t, listened)
			log.Next(t, "the master has what sockets take again")
			if s := ask(t, "tcp", tr.table.Sockets()[0].Address); s != "a" {
				t.Errorf("answer %q", s)
			}
			if len(log) > 0 {
				t.Errorf("told too: %s", <-log)
			}
			until(t, "the socket to be watched", func() bool { return tr.look().Watched })
		})
	}
	t.Run("to send one to the listener process", func(t *testing.T) {
		log := make(logLines, 100)
		tr := newTree(t, true, func(tr *tree) { tr.tableCfg.Logger = slog.New(log) })
		w := tr.worker(0)
		ln := w.mustListen(loopback)
		go serveID(ln, "a")
		tr.joined(1)
		tr.killListener()
		over := noDescriptors(t)
		tr.startListener()
		log.Next(t, "the master is short of")
		over()
		if s := ask(t, "tcp", ln.Addr().String()); s != "a" {
			t.Errorf("answer %q", s)
		}
	})
	t.Run("for longer than a worker waits", func(t *testing.T) {
		ctx, cancel := context.WithCancel(testContext(t))
		log := make(logLines, 100)
		tr := newTree(t, true, func(tr *tree) { tr.tableCfg.Logger = slog.New(log) })
		w := tr.worker(0)
		over := noDescriptors(t)
		listened := make(chan error, 1)
		go func() {
			_, err := w.ls.Listen(ctx, loopback)
			listened <- err
		}()
		log.Next(t, "the master is short of")
		cancel()
		if err := <-listened; err == nil {
			t.Error("it listens")
		}
		over()
		until(t, "nothing to be open", func() bool { return len(tr.table.Sockets()) == 0 && tr.look().Pending == 0 })
	})
}
