//go:build linux

// Kept counts what clients with kept HTTP/1 connections see while the workers behind them are
// reloaded or killed.
//
//	go -C .bench run ./kept [-idle 10000] [-active 76] [-reloads 20] [-failing 8]
//	go -C .bench run ./kept -reloads 0 -kills 200 -idle 2000 -active 60 -park 100ms
//	go -C .bench run ./kept -reloads 0 -workers 1 -scale 4 -idle 0 -active 64 -pause 200ms \
//		-time 10s -park 50ms
//
// It runs a tree, and processes with the clients, which never send a request again. An idle client
// asks once in -quiet or so. An active one asks again within -pause, each in its own way: plain,
// byte by byte, three requests at once of which the last comes in two pieces, chunked, with Expect:
// 100-continue, HEAD, and one that takes 20 ms. When all are connected the pool grows to -scale,
// then come the -reloads, of which -failing are of a generation that fails in one worker, then the
// -kills by SIGKILL, of one worker after the other, then nothing for -time. In the end each client
// asks once more. It prints JSON; its counts are, of the connections:
//
//	closed    by the server while no request was under way; closed_idle_ms: after how much idleness
//	goodbye   an answer said Connection: close
//	refused   the client could not connect
//
// Of the requests:
//
//	answered  whole, and executed once so far; plain_us: how long the plain ones took
//	lost      sent at least in part, and no byte of an answer came
//	cut       a part of the answer came
//	wrong     it is another request's answer, or the handler had not the whole body
//	twice     executed twice: all workers count in memory that they share
//
// And forced are the connections that drains have cut; hijacked those that a handler has taken
// over, which echoes lines and ends with its worker. Of times there are median, p99 and maximum.
// jain is Jain's index of the workers' shares of the requests since the pool has grown; parked is
// how many connections were parked before the clients asked for the last time.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"time"
)

var (
	idle      = flag.Int("idle", 10_000, "connections that are idle most of the time")
	active    = flag.Int("active", 76, "connections that ask again and again")
	hijacked  = flag.Int("hijacked", 4, "connections that a handler takes over")
	processes = flag.Int("processes", 4, "that have the clients")
	workers   = flag.Int("workers", 2, "worker processes")
	scale     = flag.Int("scale", 0, "worker processes once all clients are connected; 0 = as before")
	reloads   = flag.Int("reloads", 20, "reloads")
	failing   = flag.Int("failing", 8, "how many of the reloads fail")
	kills     = flag.Int("kills", 0, "SIGKILLs of a worker")
	quiet     = flag.Duration("quiet", 10*time.Second, "between two requests of an idle client, on average")
	pause     = flag.Duration("pause", 8*time.Millisecond, "between two requests of an active client, at most")
	every     = flag.Duration("every", 250*time.Millisecond, "after each reload, and each kill")
	lasting   = flag.Duration("time", 0, "how long the clients go on after the last")
	park      = flag.Duration("park", 0, "ListenerSpec.Park; -1ns is ParkAtOnce, -2ns ParkNever")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "kept:", err)
		os.Exit(1)
	}
}

func run() error {
	b, err := openBook()
	if err != nil {
		return err
	}
	if part, err := strconv.Atoi(os.Getenv(partVar)); err == nil {
		return runClients(b, part)
	}
	t, err := startTree(b) // does not return in a process of the tree
	if err != nil {
		return err
	}
	r, err := t.load()
	if err = errors.Join(err, t.Shutdown(context.Background())); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// report is what is printed; see the package comment.
type report struct {
	Seconds float64        `json:"seconds"` // from when all were connected to the last requests
	Counts  map[string]int `json:"counts"`
	Idle    []float64      `json:"closed_idle_ms"`
	Plain   []float64      `json:"plain_us"`
	Drains  []float64      `json:"drain_ms"`
	Jain    float64        `json:"jain"`
}

// load runs the clients, and does to the tree meanwhile what the flags say.
func (t *tree) load() (*report, error) {
	var cs []*clientProcess
	for part := range *processes {
		c, err := startClients(part, t.Listeners()[0].Addr.String())
		if err != nil {
			return nil, err
		}
		defer c.end()
		cs = append(cs, c)
	}
	for _, c := range cs {
		if _, err := c.stdout.ReadString('\n'); err != nil {
			return nil, fmt.Errorf("clients that connect: %w", err)
		}
	}
	began := time.Now()
	r := &report{Counts: map[string]int{"closed": 0, "lost": 0, "cut": 0, "wrong": 0}}
	if err := t.disturb(r); err != nil {
		return nil, err
	}
	r.Seconds = time.Since(began).Seconds()
	for _, c := range cs {
		_ = c.stdin.Close() // all end at once, but each has its own pauses
	}
	for _, c := range cs {
		var o outcome
		if err := json.NewDecoder(c.stdout).Decode(&o); err != nil {
			return nil, fmt.Errorf("what clients saw: %w", err)
		}
		for k, n := range o.Counts {
			r.Counts[k] += n
		}
		r.Idle, r.Plain = append(r.Idle, o.Idle...), append(r.Plain, o.Plain...)
	}
	r.Counts["twice"] = t.book.twice()
	t.mu.Lock()
	defer t.mu.Unlock()
	r.Counts["drains"], r.Counts["forced"] = len(t.took), t.forced
	r.Idle, r.Plain, r.Drains = quantiles(r.Idle), quantiles(r.Plain), quantiles(t.took)
	return r, nil
}

// quantiles returns median, p99 and maximum.
func quantiles(vs []float64) []float64 {
	if len(vs) == 0 {
		return nil
	}
	slices.Sort(vs)
	return []float64{vs[len(vs)/2], vs[len(vs)*99/100], vs[len(vs)-1]}
}

// disturb scales, reloads, kills and waits.
func (t *tree) disturb(r *report) error {
	ctx := context.Background()
	if *scale > 0 {
		if err := t.Scale(ctx, "web", *scale); err != nil {
			return err
		}
	}
	before := t.book.shares()
	for i := range *reloads {
		t.failing = -1
		if (i+1)**failing / *reloads > i**failing / *reloads {
			t.failing = i % *workers
		}
		if err := t.Reload(ctx); (err != nil) != (t.failing >= 0) {
			return fmt.Errorf("reload %d: %w", i, err)
		}
		time.Sleep(*every)
	}
	for i := range *kills {
		if t.Kill(ctx, fmt.Sprintf("web/%d", i%*workers)) == nil {
			r.Counts["killed"]++ // else it was not up again yet
		}
		time.Sleep(*every)
	}
	time.Sleep(*lasting)
	var n, sum, squares float64
	for i, after := range t.book.shares() {
		if i < max(*workers, *scale) {
			x := float64(after - before[i])
			n, sum, squares = n+1, sum+x, squares+x*x
		}
	}
	r.Jain = sum * sum / (n * squares)
	all, err := t.ListenerStats(ctx)
	if err != nil {
		return err
	}
	r.Counts["parked"] = all[0].Stats.Counts.Parked
	return nil
}

// clientProcess is a process that has clients. It writes a line once all are connected, and an
// outcome when its standard input has ended and all have asked for the last time.
type clientProcess struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout *bufio.Reader
}

// Variables of a client process: its number, and where the tree serves.
const (
	partVar = "KEPT_PART"
	addrVar = "KEPT_ADDR"
)

func startClients(part int, addr string) (*clientProcess, error) {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), partVar+"="+strconv.Itoa(part), addrVar+"="+addr)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &clientProcess{cmd, in, bufio.NewReader(out)}, cmd.Start()
}

func (c *clientProcess) end() {
	_ = c.stdin.Close()
	_ = c.cmd.Wait()
}
