//go:build linux

package netactor_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/dispatch"
	"github.com/coppice-go/coppice/netactor/listen"
	"github.com/coppice-go/coppice/netactor/registry"
)

// The tests of this file run the listener process as a separate process, and kill it. Master and
// workers are this process.

// dispatcherMain is the main function of a listener process. A link to a worker comes by kindLink,
// with the worker's ID.
func dispatcherMain(f *os.File) {
	d := dispatch.New(dispatch.Config{})
	ready := make(chan struct{})
	c, err := fdipc.New(f, fdipc.Config{Handler: func(c *fdipc.Conn, f *fdipc.Frame) {
		<-ready
		if f.Kind != kindLink {
			orRefuse(f, d.HandleFrame(netactor.Worker{}, c, f))
			return
		}
		file, err := f.Handles[0].File()
		if err != nil {
			panic(err)
		}
		w := netactor.Worker{ID: f.Target, Name: fmt.Sprint("web/", f.Target), Pool: "web", Slot: int(f.Target)}
		link, err := fdipc.New(file, fdipc.Config{
			Handler:  func(c *fdipc.Conn, f *fdipc.Frame) { orRefuse(f, d.HandleFrame(w, c, f)) },
			Resolved: func(c *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) { d.Settled(c, h, o) },
			Credits:  netactor.LinkCredits,
		})
		if err != nil {
			panic(err)
		}
		d.AddWorker(w, link)
	}})
	if err != nil {
		panic(err)
	}
	close(ready)
	<-c.Done()
}

// forked is a tree whose listener process is a separate process.
type forked struct {
	t       *testing.T
	table   *registry.Table
	workers []*listen.Listeners
	master  []*fdipc.Conn // both ends of the workers' Conns to the master
	cmd     *exec.Cmd
	up      *fdipc.Conn
	links   []*fdipc.Conn // the workers' ends

	received atomic.Int64 // connections that the workers' listeners have in hand
}

func newForked(t *testing.T, workers int) *forked {
	t.Helper()
	checkLeaks(t)
	f := &forked{t: t, table: registry.New(registry.Config{Logger: quiet})}
	for i := range workers {
		w := netactor.Worker{ID: uint64(i + 1), Name: fmt.Sprint("web/", i+1), Pool: "web", Slot: i + 1}
		var ls *listen.Listeners
		ready := make(chan struct{})
		a, b := fdipc.Pipe(
			fdipc.Config{Handler: func(c *fdipc.Conn, fr *fdipc.Frame) { <-ready; orRefuse(fr, f.table.HandleFrame(w, c, fr)) }},
			fdipc.Config{Handler: func(c *fdipc.Conn, fr *fdipc.Frame) { <-ready; orRefuse(fr, ls.HandleFrame(c, fr)) }},
		)
		ls = listen.New(listen.Config{Master: b, Pool: "web", Logger: quiet})
		f.table.AddWorker(w, a)
		close(ready)
		f.workers, f.master = append(f.workers, ls), append(f.master, a, b)
	}
	f.start()
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		for _, ls := range f.workers {
			_ = ls.Drain(now)
		}
		f.kill()
		for _, c := range f.master {
			c.Close()
			<-c.Done()
		}
		f.table.Close()
		*f = forked{}
	})
	return f
}

// start starts a listener process and links the workers to it.
func (f *forked) start() {
	f.t.Helper()
	local, remote, err := fdipc.Socketpair()
	if err != nil {
		f.t.Fatal(err)
	}
	f.cmd = exec.Command(os.Args[0])
	f.cmd.Env = append(os.Environ(), fdipc.Environ(3, map[string]string{"ROLE": "listener"})...)
	f.cmd.ExtraFiles = []*os.File{remote}
	f.cmd.Stderr = os.Stderr
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := f.cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	remote.Close()
	f.up, err = fdipc.New(local, fdipc.Config{Handler: func(c *fdipc.Conn, fr *fdipc.Frame) {
		orRefuse(fr, f.table.HandleFrame(netactor.Worker{ID: 1 << 40}, c, fr))
	}})
	if err != nil {
		f.t.Fatal(err)
	}
	f.table.Attach(f.up)
	for i, ls := range f.workers {
		mine, its, err := fdipc.Socketpair()
		if err != nil {
			f.t.Fatal(err)
		}
		link, err := fdipc.New(mine, fdipc.Config{
			Handler: func(c *fdipc.Conn, fr *fdipc.Frame) {
				n := len(fr.Handles)
				orRefuse(fr, ls.HandleFrame(c, fr))
				f.received.Add(int64(n))
			},
			Credits: netactor.LinkCredits,
		})
		if err != nil {
			f.t.Fatal(err)
		}
		fr := &fdipc.Frame{Kind: kindLink, Target: uint64(i + 1), Handles: []*fdipc.Handle{handleOf(f.t, its)}}
		if err := f.up.Send(testContext(f.t), fr); err != nil {
			f.t.Fatal(err)
		}
		ls.AddLink(link)
		f.links = append(f.links, link)
	}
}

// kill kills the listener process and waits for its end, as the master does.
func (f *forked) kill() {
	_ = f.cmd.Process.Kill()
	_ = f.cmd.Wait()
	f.table.Detach()
	f.up.PeerGone()
	<-f.up.Done()
	for _, c := range f.links {
		<-c.Done() // the worker keeps the connections that came over it
	}
	f.links = nil
}

func (f *forked) stats() netactor.ListenerStats {
	f.t.Helper()
	all, err := f.table.Stats(testContext(f.t))
	if err != nil {
		f.t.Fatal(err)
	}
	if len(all) == 0 {
		return netactor.ListenerStats{}
	}
	return all[0]
}

// A connection in a worker's queue can still be claimed after the listener process is killed, and
// the next listener process serves the backlog.
func TestListenerKilledWithOffers(t *testing.T) {
	f := newForked(t, 1)
	ln, err := f.workers[0].Listen(testContext(t), loopback)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the worker to take part", func() bool { return len(f.stats().Workers) == 1 })
	const n = 20
	answers := make(chan string, 2*n)
	ask := func() {
		s, err := tryAsk("tcp", ln.Addr().String())
		answers <- fmt.Sprint(s, err)
	}
	for range n {
		go ask()
	}
	until(t, "all to be in the worker's queue", func() bool { return f.received.Load() == n })
	f.kill()
	for range n { // no process accepts these now
		go ask()
	}
	go serveID(ln, "ok")
	for range n {
		if s := <-answers; s != "ok<nil>" {
			t.Errorf("answer %q", s)
		}
	}
	f.start()
	for range n {
		if s := <-answers; s != "ok<nil>" {
			t.Errorf("answer %q", s)
		}
	}
}

// Each kill of the listener process under load costs at most the batch that it was offering; the
// workers' counts and the clients' counts agree.
func TestListenerKilledUnderLoad(t *testing.T) {
	const workers, clients = 2, 100
	kills := 5
	if soak {
		kills = 200
	}
	f := newForked(t, workers)
	var taken, ok, cut, refused, hung atomic.Int64
	var addr string
	for _, ls := range f.workers {
		ln, err := ls.Listen(testContext(t), loopback)
		if err != nil {
			t.Fatal(err)
		}
		addr = ln.Addr().String()
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				taken.Add(1)
				_, _ = io.WriteString(c, "ok")
				c.Close()
			}
		}()
	}
	var running sync.WaitGroup
	over := make(chan struct{})
	for id := range clients {
		running.Go(func() {
			d := net.Dialer{Timeout: deadline, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(2+id))}}
			for {
				select {
				case <-over:
					return
				default:
				}
				switch s, err := askBy(&d, addr); {
				case err == nil && s == "ok":
					ok.Add(1)
				case isDial(err):
					refused.Add(1)
				case isTimeout(err):
					hung.Add(1)
				default:
					cut.Add(1)
				}
			}
		})
	}
	for range kills {
		goal := ok.Load() + 200
		until(t, "more connections", func() bool { return ok.Load() >= goal })
		f.kill()
		f.start()
	}
	close(over)
	running.Wait()
	t.Logf("%d kills: ok %d, cut %d, refused %d, hung %d; taken by workers %d", kills, ok.Load(), cut.Load(), refused.Load(), hung.Load(), taken.Load())
	if refused.Load()+hung.Load() != 0 || cut.Load() > int64(kills*64) {
		t.Error("more is lost than the batch in its hands")
	}
	if ok.Load() != taken.Load() {
		t.Error("the sides do not agree")
	}
}

// askBy is tryAsk from a given address.
func askBy(d *net.Dialer, addr string) (string, error) {
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(deadline))
	b, err := io.ReadAll(c)
	return string(b), err
}
