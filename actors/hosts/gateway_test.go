package hosts_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/internal/trunk"
	"github.com/coppice-go/coppice/fdipc"
)

// TestGateway: a child, a master and a gateway ask actors of another host, and hear of the end of a
// process there with its reason, after what it has sent.
func TestGateway(t *testing.T) {
	c := newCluster(t, time.Minute, "a", "b")
	a, b := c.hosts["a"], c.hosts["b"]
	worker := b.child("b")
	pid := spawn(t, worker.System, "echo", echo)
	for _, from := range []*actors.System{a.child("a").System, a.master, a.gateway.System} {
		answers(t, from, pid)
		if d := next(t, "Down", from.Monitor(actor.NewPID(worker.Address(), "nobody")).C); !errors.Is(d.Reason.Err(), actors.ErrNoActor) {
			t.Errorf("Down of nobody: %v", d.Reason)
		}
		ask, m, proc := held(t, from, pid), from.Monitor(pid), from.Monitor(actors.ProcessPID(pid.Address))
		answers(t, from, pid)
		worker.kill(killed)
		for _, mon := range []*actors.Monitor{m, proc} {
			if d := next(t, "Down", mon.C); d.Reason != killed {
				t.Errorf("Down: %v, want %v", d.Reason, killed)
			}
		}
		if down, ok := errors.AsType[*actors.DownError](next(t, "the ask", ask)); !ok || down.Reason != killed {
			t.Errorf("the ask: %v", down)
		}
		worker = b.child("b")
		pid = spawn(t, worker.System, "echo", echo)
	}
}

// TestLastMessages: what a process has sent before it died comes to each process of another host
// before its Down does, also if there are several, the network is slow, or a receiver is.
func TestLastMessages(t *testing.T) {
	for _, row := range []struct {
		name string
		cut  bool
	}{{"behind the network", true}, {"behind the receiver", false}} {
		t.Run(row.name, func(t *testing.T) {
			c := newCluster(t, time.Minute, "a", "b")
			a, b := c.hosts["a"], c.hosts["b"]
			slow, quick, sender := a.child("a"), a.child("a"), b.child("b")
			var got atomic.Int64
			gate := make(chan struct{})
			const warm, sent = 20, 80
			pid, err := slow.SpawnSpec(t.Context(), actors.Spec{Name: "slow", Bound: 4, New: func() actor.Actor {
				return actor.ReceiveFunc(func(c actor.Context) {
					if s, ok := c.Message().(string); ok && s == "x" {
						c.Respond(s)
					} else if ok && got.Add(1) == warm+1 {
						<-gate
					}
				})
			}})
			if err != nil {
				t.Fatal(err)
			}
			other, own := spawn(t, quick.System, "quick", echo), spawn(t, sender.System, "own", echo)
			answers(t, sender.System, pid)
			answers(t, sender.System, other)
			answers(t, slow.System, own)
			first := slow.Monitor(actors.ProcessPID(sender.Address()))
			second := quick.Monitor(actors.ProcessPID(sender.Address()))
			body := strings.Repeat("y", 10<<10)
			send := func(n int) {
				for range n {
					if err := sender.Send(t.Context(), pid, body); err != nil {
						t.Fatal(err)
					}
				}
			}
			send(warm)
			until(t, "the lane is warm", func() bool { return got.Load() == warm })
			if row.cut {
				c.net.CutOneWay("b", "a")
			}
			before := b.stats("a")
			send(sent)
			until(t, "all has left the sender", func() bool {
				s := b.stats("a")
				return s.Sent+uint64(s.Queued) > before.Sent+uint64(before.Queued)+sent*uint64(len(body))
			})
			sender.kill(killed)
			until(t, "its lanes have ended", func() bool { return b.stats("a").Lanes == before.Lanes-2 })
			if row.cut {
				c.net.Heal()
			}
			if d := next(t, "Down", second.C); d.Reason != killed { // does not wait
				t.Errorf("Down: %v", d.Reason)
			}
			close(gate)
			d := next(t, "Down", first.C)
			if n := got.Load() - warm; n != sent || d.Reason != killed {
				t.Errorf("%d of %d came before Down: %v", n, sent, d.Reason)
			}
		})
	}
}

// TestHostileOffers: a host that opens lanes of addresses that no process can have, or of another
// host, hears that each has ended; one of its own is answered.
func TestHostileOffers(t *testing.T) {
	c := newCluster(t, time.Minute, "a")
	to := c.hosts["a"].child("a").Address()
	tr := c.intruder("c", "a", nil)
	for from, ends := range map[string]bool{"bootc.1": false, "bootc.@": true, "bootb.1": true, "bootc." + strings.Repeat("x", 3000): true} {
		info := binary.AppendUvarint(nil, 1)
		info = append(binary.AppendUvarint(info, uint64(len(from))), from...)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if _, _, err := tr.Open(ctx, append(info, to...)); errors.Is(err, trunk.ErrEnded) != ends || !ends && err != nil {
			t.Errorf("%.20q: %v", from, err)
		}
		cancel()
	}
}

// TestNoAnswer: a host that does not answer whether it accepts a lane has the lane fail, and what
// waits for it.
func TestNoAnswer(t *testing.T) {
	c := newNetwork(t, time.Minute)
	c.edit = func(cfg *hosts.Config) { cfg.SetOpenWait(50 * time.Millisecond) }
	a := c.start("a", "boota")
	c.intruder("c", "a", func(*trunk.Lane, []byte) {})
	from := a.child("a").System
	until(t, "the lane fails", func() bool {
		_, err := from.Ask(t.Context(), actor.NewPID("bootc.1", "x"), "x")
		return errors.Is(err, actors.ErrLane)
	})
	if d := next(t, "Down", from.Monitor(actors.ProcessPID("bootc.2")).C); !errors.Is(d.Reason.Err(), actors.ErrLane) {
		t.Errorf("Down: %v", d.Reason)
	}
}

// records counts what the log has of hosts that have no trunk.
type records struct {
	mu    sync.Mutex
	count map[string]int // level, host
}

func (r *records) Enabled(context.Context, slog.Level) bool { return true }
func (r *records) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *records) WithGroup(string) slog.Handler            { return r }
func (r *records) Handle(_ context.Context, rec slog.Record) error {
	if rec.Message != "hosts: no trunk" {
		return nil
	}
	rec.Attrs(func(a slog.Attr) bool {
		if a.Key == "host" {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.count[rec.Level.String()+" "+a.Value.String()]++
		}
		return true
	})
	return nil
}

func (r *records) of(what string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count[what]
}

// TestMistakes: the log warns once of a host that cannot be reached, until it was up; and a host
// that is not among the peers has an error of its own.
func TestMistakes(t *testing.T) {
	c := newNetwork(t, time.Minute)
	log := &records{count: map[string]int{}}
	c.log = log
	from := c.start("a", "boota").child("a").System
	ask := func(host string) error {
		_, err := from.Ask(t.Context(), from.LookupAt(host, "x"), "x")
		return err
	}
	until(t, "several dials", func() bool { return log.of("DEBUG b") >= 2 })
	warnings := log.of("WARN b")
	if warnings == 0 || warnings > 2 { // a refusal, and a connection that is reset
		t.Errorf("%d warnings", warnings)
	}
	until(t, "the peers are known", func() bool { return errors.Is(ask("nobody"), actors.ErrNoHost) })
	if err := ask("b"); !errors.Is(err, actors.ErrUnreachable) || errors.Is(err, actors.ErrNoHost) {
		t.Errorf("a host that is down: %v", err)
	}
	b := c.start("b", "bootb")
	answers(t, from, spawn(t, b.child("b").System, "echo", echo))
	b.gateway.kill(killed)
	until(t, "a warning after it was up", func() bool { return log.of("WARN b") > warnings })
}

// TestBlackHole: a host of which nothing comes is unreachable on both sides, and after healing the
// same PIDs work; one that is started anew has lost what ran before.
func TestBlackHole(t *testing.T) {
	c := newCluster(t, 300*time.Millisecond, "a", "b")
	a, b := c.hosts["a"], c.hosts["b"]
	from, worker := a.child("a").System, b.child("b")
	pid, back := spawn(t, worker.System, "echo", echo), spawn(t, from, "echo", echo)
	for range 2 {
		answers(t, from, pid)
		answers(t, worker.System, back)
		ends := []<-chan actors.Down{
			from.Monitor(pid).C, from.Monitor(actors.ProcessPID(pid.Address)).C,
			worker.Monitor(back).C, worker.Monitor(actors.ProcessPID(back.Address)).C,
		}
		ask := held(t, from, pid)
		answers(t, from, pid)
		c.net.Isolate("b")
		for _, end := range ends {
			if d := next(t, "Down", end); !errors.Is(d.Reason.Err(), actors.ErrUnreachable) {
				t.Errorf("Down: %v", d.Reason)
			}
		}
		if err := next(t, "the ask", ask); !errors.Is(err, actors.ErrUnreachable) {
			t.Errorf("the ask: %v", err)
		}
		if _, err := from.Ask(t.Context(), pid, "x"); !errors.Is(err, actors.ErrUnreachable) {
			t.Errorf("an ask in the black hole: %v", err)
		}
		c.net.Heal()
	}
	answers(t, from, pid)
	b.gateway.kill(killed)
	again := c.start("b", "bootb2")
	answers(t, from, spawn(t, again.child("b").System, "echo", echo))
	if _, err := from.Ask(t.Context(), pid, "x"); !errors.Is(err, actors.ErrDown) || errors.Is(err, actors.ErrUnreachable) {
		t.Errorf("an ask of the former boot: %v", err)
	}
}

// TestGatewayKilled: when a gateway ends, both hosts report unreachable, and its successor
// carries again.
func TestGatewayKilled(t *testing.T) {
	c := newCluster(t, time.Minute, "a", "b")
	a, b := c.hosts["a"], c.hosts["b"]
	from, worker := a.child("a").System, b.child("b").System
	pid, back := spawn(t, worker, "echo", echo), spawn(t, from, "echo", echo)
	for range 3 {
		answers(t, from, pid)
		answers(t, worker, back)
		m, other := from.Monitor(pid), worker.Monitor(back)
		answers(t, from, pid)
		answers(t, worker, back)
		a.gateway.kill(killed)
		for _, mon := range []*actors.Monitor{m, other} {
			if d := next(t, "Down", mon.C); !errors.Is(d.Reason.Err(), actors.ErrUnreachable) {
				t.Errorf("Down: %v", d.Reason)
			}
		}
		a.startGateway()
	}
	answers(t, from, pid)
}

// TestLookupAt: a name of another host is found and followed.
func TestLookupAt(t *testing.T) {
	c := newCluster(t, time.Minute, "a", "b")
	a, b := c.hosts["a"], c.hosts["b"]
	from := a.child("a").System
	for i := range 5 {
		holder := b.child("b")
		pid := spawn(t, holder.System, "holder", func(c actor.Context) { c.Respond(i) })
		if err := holder.Reregister(t.Context(), "lead", pid); err != nil {
			t.Fatal(err)
		}
		for _, s := range []*actors.System{from, a.master} {
			until(t, "it reaches the holder", func() bool { v, err := s.Ask(t.Context(), s.LookupAt("b", "lead"), "who"); return err == nil && v == i })
		}
	}
}

// withConn is a message with a connection.
type withConn struct {
	conn net.Conn
}

func (m *withConn) TakeHandles() []any                       { return []any{m.conn} }
func (m *withConn) SetHandles(handles []*fdipc.Handle) error { return nil }

func init() { actors.RegisterType[*withConn]("hosts_test.conn") }

// TestDescriptorsStay: a process that does not know that it is in a cluster, and sends a descriptor
// to another host, is told of nothing and does no harm: the gateway drops the message.
func TestDescriptorsStay(t *testing.T) {
	c := newCluster(t, time.Minute, "a", "b")
	a, b := c.hosts["a"], c.hosts["b"]
	liar := a.child("").System
	got := make(chan any, 16)
	pid := spawn(t, b.child("b").System, "sink", func(c actor.Context) { got <- c.Message(); c.Respond("x") })
	answers(t, liar, pid)
	mine, its := net.Pipe()
	defer mine.Close()
	r, w, err := fdipc.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	conn, err := net.FileConn(w)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	its.Close()
	if err := liar.Send(t.Context(), pid, &withConn{conn}); err != nil {
		t.Fatal(err)
	}
	answers(t, liar, pid)
	for len(got) > 0 {
		if m, is := (<-got).(*withConn); is {
			t.Errorf("it has arrived: %v", m)
		}
	}
}

// number is a numbered message.
type number struct{ From, N int }

func init() { actors.RegisterType[number]("hosts_test.number") }

// TestNothingTwice: while hosts are cut off and healed, and a gateway is replaced, each ask ends,
// what an actor gets of a sender rises, and what was sent is handled, an error of its sender, or in
// doubt for a trunk that was lost. Without a loss nothing is.
func TestNothingTwice(t *testing.T) {
	for _, cuts := range []int{0, 6} {
		if testing.Short() {
			cuts = min(cuts, 2)
		}
		t.Run(fmt.Sprint(cuts, " cuts"), func(t *testing.T) {
			silence := time.Minute
			if cuts > 0 {
				silence = 300 * time.Millisecond
			}
			c := newCluster(t, silence, "a", "b", "c")
			var handled, failed, sent atomic.Int64
			var pids []*actor.PID
			for _, name := range []string{"a", "b", "c"} {
				last := map[int]int{}
				pids = append(pids, spawn(t, c.hosts[name].child(name).System, "sink", func(c actor.Context) {
					m, ok := c.Message().(number)
					if !ok {
						c.Respond(c.Message())
						return
					}
					if m.N <= last[m.From] {
						t.Errorf("%d comes after %d of %d", m.N, last[m.From], m.From)
					}
					last[m.From] = m.N
					handled.Add(1)
				}))
			}
			stop := make(chan struct{})
			var wg sync.WaitGroup
			for i, name := range []string{"a", "b", "c"} {
				s := c.hosts[name].child(name).System
				for j, pid := range pids {
					if i == j {
						continue
					}
					answers(t, s, pid)
					wg.Go(func() {
						for n := 1; ; n++ {
							select {
							case <-stop:
								answers(t, s, pid) // what was sent before has come
								return
							default:
							}
							if n%16 == 0 { // each ends
								if _, err := s.Ask(t.Context(), pid, "x"); err != nil && !errors.Is(err, actors.ErrUnreachable) && !errors.Is(err, actors.ErrLane) {
									t.Errorf("ask: %v", err)
								}
								continue
							}
							sent.Add(1)
							if err := s.Send(t.Context(), pid, number{i*10 + j, n}); err != nil {
								failed.Add(1)
							}
						}
					})
				}
			}
			rnd := rand.New(rand.NewPCG(uint64(cuts), 1))
			for n := range cuts {
				before := handled.Load()
				switch n % 3 {
				case 0:
					c.net.Isolate([]string{"a", "b", "c"}[rnd.IntN(3)])
					f := failed.Load()
					until(t, "it is noticed", func() bool { return failed.Load() > f })
					c.net.Heal()
				case 1:
					c.net.Reset("a", "b")
				case 2:
					c.hosts["c"].gateway.kill(killed)
					c.hosts["c"].startGateway()
				}
				until(t, "messages go on", func() bool { return handled.Load() > before+1000 })
			}
			until(t, "many are handled", func() bool { return handled.Load() > 3000 })
			close(stop)
			wg.Wait()
			doubt := sent.Load() - handled.Load() - failed.Load()
			if doubt < 0 || cuts == 0 && doubt != 0 {
				t.Errorf("%d sent, %d handled, %d failed: %d in doubt", sent.Load(), handled.Load(), failed.Load(), doubt)
			}
			t.Logf("%d sent, %d handled, %d failed, %d in doubt", sent.Load(), handled.Load(), failed.Load(), doubt)
		})
	}
}

// TestConfig: each field that is wrong is named.
func TestConfig(t *testing.T) {
	good := hosts.Config{Cluster: "shop", Name: "a", Listen: "127.0.0.1:7400", Peers: hosts.Static{"b": "127.0.0.1:7401"}}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for field, edit := range map[string]func(*hosts.Config){
		"Cluster": func(c *hosts.Config) { c.Cluster = "" },
		"Name":    func(c *hosts.Config) { c.Name = "-a" },
		"Name ":   func(c *hosts.Config) { c.Name = "a/b" },
		"Listen":  func(c *hosts.Config) { c.Listen = ":7400" },
		"TLS":     func(c *hosts.Config) { c.Listen = "10.0.0.1:7400" },
		"TLS  ": func(c *hosts.Config) {
			c.Listen, c.Peers = "0.0.0.0:7400", hosts.Static{"Listen": "127.0.0.1:7401"}
		},
		"TLS ":    func(c *hosts.Config) { c.TLS.Cert = "a.pem" },
		"Peers":   func(c *hosts.Config) { c.Peers = hosts.Static{"b": "127.0.0.1"} },
		"Silence": func(c *hosts.Config) { c.Silence = 1 },
	} {
		c := good
		edit(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(field)) {
			t.Errorf("%s: error %v", field, err)
		}
	}
}

// openings counts how often a process is named in what is read.
type openings struct {
	net.Conn
	of []byte
	n  *atomic.Int64
}

func (o openings) Read(b []byte) (int, error) {
	n, err := o.Conn.Read(b)
	o.n.Add(int64(bytes.Count(b[:n], o.of)))
	return n, err
}

// TestNoRoomThere: a host that has no room for a lane is asked for it again from time to time, not
// as fast as it refuses.
func TestNoRoomThere(t *testing.T) {
	c := newNetwork(t, patience)
	c.edit = func(cfg *hosts.Config) { cfg.SetOpenWait(10 * hosts.RoomPause) }
	a := c.start("a", "boota")
	from := a.child("a").System
	var asked atomic.Int64
	up := make(chan *trunk.Trunk, 1)
	m, err := trunk.New(trunk.Config{
		Cluster: "shop", Self: trunk.Host{Name: "c", Boot: "bootc", Incarnation: 1}, Silence: c.silence, MaxLanes: -1,
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			conn, err := c.net.Dial(ctx, "c", address)
			return openings{conn, []byte(from.Address() + "bootc.1"), &asked}, err
		},
		Up: func(t *trunk.Trunk) { up <- t },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.SetPeers(map[string]string{"a": "a"})
	next(t, "a trunk", up)
	until(t, "the lane fails", func() bool {
		_, err := from.Ask(t.Context(), actor.NewPID("bootc.1", "x"), "x")
		return errors.Is(err, actors.ErrLane)
	})
	if n := asked.Load(); n < 1 || n > 30 {
		t.Errorf("it was asked for %d times", n)
	}
}
