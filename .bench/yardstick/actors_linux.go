package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/bench/yardstick/peers"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

func actorRows() []row {
	return []row{
		{"local_tell", localTell(ours)},
		{"bare_tell", localTell(bare)},
		{"local_ask", localAsk(ours)},
		{"bare_ask", localAsk(bare)},
		{"process_tell_64", between(tell64)},
		{"process_ask_1", between(askInFlight(1))},
		{"process_ask_64", between(askInFlight(64))},
		{"sibling_tell_64", betweenSiblings("tell")},
		{"sibling_ask_64", betweenSiblings("ask")},
		{"peer_remote_tell_64", remote(func(d time.Duration, tell func([]byte), ask asking) (result, int, error) {
			b := make([]byte, 64)
			return tellFor(d, b, func(any) error { tell(b); return nil }, func(any) (any, error) { return ask(nil) })
		})},
		{"peer_remote_ask_1", remote(remoteAsks(1))},
		{"peer_remote_ask_64", remote(remoteAsks(64))},
		{"peer_go_roundtrip_64", peerGoPingPong(64)},
		{"peer_c_roundtrip_64", inC("roundtrips/s", "pingpong", "64")},
	}
}

// total asks for the number of messages that were told, and ends a row of tells.
type total struct{}

// measure asks a child to measure its sibling, and result is the answer.
type measure struct {
	What string
	To   *actor.PID
	For  time.Duration
}

func init() {
	actors.RegisterType[total]("yardstick.total")
	actors.RegisterType[measure]("yardstick.measure")
	actors.RegisterType[result]("yardstick.result")
}

// counter counts its messages; it answers an int with the same int.
func counter() actor.Actor {
	n := 0
	return actor.ReceiveFunc(func(ctx actor.Context) {
		switch m := ctx.Message().(type) {
		case []byte, uint8:
			n++
		case int:
			ctx.Respond(m)
		case total:
			ctx.Respond(n)
			n = 0
		}
	})
}

// local is an actor in this process, behind what is measured.
type local struct {
	tell func(msg any) error
	ask  func(msg any) (any, error)
	end  func()
}

func ours() (local, error) {
	ctx := context.Background()
	s, err := actors.NewSystem(actors.Config{Address: "0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return local{}, err
	}
	pid, err := s.Spawn(ctx, "counter", counter)
	return local{
		tell: func(msg any) error { return s.Send(ctx, pid, msg) },
		ask:  func(msg any) (any, error) { return s.Ask(ctx, pid, msg) },
		end:  func() { _ = s.Shutdown(ctx) },
	}, err
}

// bare is protoactor alone.
func bare() (local, error) {
	sys := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger {
		return slog.New(slog.DiscardHandler)
	}))
	pid := sys.Root.Spawn(actor.PropsFromProducer(counter))
	return local{
		tell: func(msg any) error { sys.Root.Send(pid, msg); return nil },
		ask:  func(msg any) (any, error) { return sys.Root.RequestFuture(pid, msg, time.Minute).Result() },
		end:  func() { sys.Root.Stop(pid); sys.Shutdown() },
	}, nil
}

func localTell(make func() (local, error)) func(time.Duration) (result, error) {
	return func(d time.Duration) (result, error) {
		l, err := make()
		if err != nil {
			return result{}, err
		}
		defer l.end()
		own := selfCPU()
		r, n, err := tellFor(d, uint8(7), l.tell, l.ask)
		r.CPU = float64((selfCPU() - own).Nanoseconds()) / float64(n)
		return r, err
	}
}

// tellFor sends for d and waits until all messages are handled.
func tellFor(d time.Duration, msg any, tell func(any) error, ask func(any) (any, error)) (r result, n int, err error) {
	for started := time.Now(); ; n++ {
		if n&1023 == 0 && time.Since(started) >= d {
			got, err := ask(total{})
			if err == nil && got != n {
				err = fmt.Errorf("told %d, %v arrived", n, got)
			}
			return result{Unit: "messages/s", Value: float64(n) / time.Since(started).Seconds()}, n, err
		}
		if err := tell(msg); err != nil {
			return r, n, err
		}
	}
}

func localAsk(make func() (local, error)) func(time.Duration) (result, error) {
	return func(d time.Duration) (result, error) {
		l, err := make()
		if err != nil {
			return result{}, err
		}
		defer l.end()
		own := selfCPU()
		lat, _, err := askFor(d, 1, l.ask)
		if err != nil {
			return result{}, err
		}
		return latencies(lat, selfCPU()-own), nil
	}
}

// askFor has n askers ask for d, each one question at a time.
func askFor(d time.Duration, n int, ask func(any) (any, error)) (lat []time.Duration, took time.Duration, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	started := time.Now()
	for range n {
		wg.Go(func() {
			var own []time.Duration
			at := time.Now()
			for at.Sub(started) < d {
				v, e := ask(7)
				u := time.Now()
				own, at = append(own, u.Sub(at)), u
				if e == nil && v != 7 {
					e = fmt.Errorf("the answer is %v", v)
				}
				if e != nil {
					mu.Lock()
					err = e
					mu.Unlock()
					return
				}
			}
			mu.Lock()
			lat = append(lat, own...)
			mu.Unlock()
		})
	}
	wg.Wait()
	return lat, time.Since(started), err
}

// asked makes a row of what n askers measured.
func asked(lat []time.Duration, took time.Duration) result {
	slices.Sort(lat)
	us := func(q float64) float64 { return float64(lat[int(float64(len(lat)-1)*q)].Nanoseconds()) / 1000 }
	return result{Unit: "asks/s", Value: float64(len(lat)) / took.Seconds(), P50: us(.5), P99: us(.99)}
}

// run measures from s to the counter behind pid, and returns how many operations it took.
type run func(s *actors.System, pid *actor.PID, d time.Duration) (result, int, error)

func tell64(s *actors.System, pid *actor.PID, d time.Duration) (result, int, error) {
	ctx := context.Background()
	var msg any = make([]byte, 64)
	return tellFor(d, msg,
		func(msg any) error { return s.Send(ctx, pid, msg) },
		func(msg any) (any, error) { return s.Ask(ctx, pid, msg) })
}

func askInFlight(n int) run {
	return func(s *actors.System, pid *actor.PID, d time.Duration) (result, int, error) {
		return inFlight(d, n, func(msg any) (any, error) { return s.Ask(context.Background(), pid, msg) })
	}
}

func inFlight(d time.Duration, n int, ask func(any) (any, error)) (result, int, error) {
	lat, took, err := askFor(d, n, ask)
	if err != nil || len(lat) == 0 {
		return result{}, 0, err
	}
	return asked(lat, took), len(lat), nil
}

type asking = func(any) (any, error)

// remote measures from this process to a child over protoactor's remote.
func remote(run func(d time.Duration, tell func([]byte), ask asking) (result, int, error)) func(time.Duration) (result, error) {
	return func(d time.Duration) (r result, err error) {
		tell, ask, cmd, end, err := peers.Counter(os.Stderr, peerVar+"=remote")
		if err != nil {
			return r, err
		}
		if _, err := ask(7); err != nil {
			return r, err
		}
		p := &process{cmd: cmd}
		p.begin()
		r, n, err := run(d, tell, ask)
		_ = cmd.Process.Kill()
		r.CPU = float64(p.end().Nanoseconds()) / float64(n)
		end()
		return r, err
	}
}

func remoteAsks(n int) func(time.Duration, func([]byte), asking) (result, int, error) {
	return func(d time.Duration, _ func([]byte), ask asking) (result, int, error) {
		return inFlight(d, n, ask)
	}
}

// actorChild joins a child with actors to s.
func actorChild(s *actors.System, id int) (*process, *fdipc.Conn, error) {
	address := strconv.Itoa(id)
	ready := make(chan error, 1)
	c, p, err := spawn("actors "+address, fdipc.Config{
		Ready:   func(c *fdipc.Conn) { ready <- s.Attach(address, 0, c) },
		Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { s.HandleFrame(address, f) },
		Closed:  func(*fdipc.Conn, error) { s.Detach(address, supervisor.Reason{Kind: supervisor.Normal}) },
	})
	if err != nil {
		return nil, nil, err
	}
	return p, c, <-ready
}

// actorsChild runs such a child: an actor that counts, and one that measures the sibling.
func actorsChild(address string) func(*os.File) {
	return func(f *os.File) {
		if err := playActors(address, f); err != nil {
			fmt.Fprintln(os.Stderr, "yardstick:", err)
			os.Exit(1)
		}
	}
}

func playActors(address string, f *os.File) error {
	ctx := context.Background()
	s, err := actors.NewSystem(actors.Config{Address: address})
	if err != nil {
		return err
	}
	if _, err := s.Spawn(ctx, "counter", counter); err != nil {
		return err
	}
	runs := map[string]run{"tell": tell64, "ask": askInFlight(64)}
	if _, err := s.Spawn(ctx, "measure", func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			if m, ok := ctx.Message().(measure); ok {
				r, n, err := runs[m.What](s, m.To, m.For)
				if err != nil {
					actors.Exit(err)
				}
				r.CPU = float64(n) // the driver makes it what it is
				ctx.Respond(r)
			}
		})
	}); err != nil {
		return err
	}
	var attach error
	c, err := fdipc.New(f, fdipc.Config{
		Ready:   func(c *fdipc.Conn) { s.Uplink("0"); attach = s.Attach("0", 0, c) },
		Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { s.HandleFrame("0", f) },
	})
	if err != nil {
		return err
	}
	<-c.Done()
	return attach
}

func master() (*actors.System, error) {
	return actors.NewSystem(actors.Config{Address: "0", Logger: slog.New(slog.DiscardHandler)})
}

// between measures from this process to a child.
func between(run run) func(time.Duration) (result, error) {
	return func(d time.Duration) (r result, err error) {
		s, err := master()
		if err != nil {
			return r, err
		}
		p, c, err := actorChild(s, 1)
		if err != nil {
			return r, err
		}
		pid := actor.NewPID("1", "counter")
		if _, err := s.Ask(context.Background(), pid, 7); err != nil { // the child's start is not part of the row
			return r, err
		}
		p.begin()
		r, n, err := run(s, pid, d)
		c.Close()
		<-c.Done()
		r.CPU = float64(p.end().Nanoseconds()) / float64(n)
		return r, err
	}
}

// betweenSiblings measures from one child to another, over the lane between them.
func betweenSiblings(what string) func(time.Duration) (result, error) {
	return func(d time.Duration) (r result, err error) {
		s, err := master()
		if err != nil {
			return r, err
		}
		var ps []*process
		var cs []*fdipc.Conn
		for id := 1; id <= 2; id++ {
			p, c, err := actorChild(s, id)
			if err != nil {
				return r, err
			}
			if _, err := s.Ask(context.Background(), actor.NewPID(strconv.Itoa(id), "counter"), 7); err != nil {
				return r, err
			}
			ps, cs = append(ps, p), append(cs, c)
		}
		for _, p := range ps {
			p.used = p.childCPU()
		}
		v, err := s.Ask(context.Background(), actor.NewPID("1", "measure"), measure{what, actor.NewPID("2", "counter"), d})
		for _, c := range cs {
			c.Close()
			<-c.Done()
		}
		var cpu time.Duration
		for _, p := range ps {
			p.used += selfCPU() // this process has no part in it
			cpu += p.end()
		}
		if err != nil {
			return r, err
		}
		r = v.(result)
		r.CPU = float64(cpu.Nanoseconds()) / r.CPU
		return r, nil
	}
}
