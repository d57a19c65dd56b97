package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/coppice-go/coppice/bench/yardstick/peers"
	coppice "github.com/coppice-go/coppice/runtime"
)

// tree is what the flags of accept and http say.
var tree struct {
	workers  int
	policy   coppice.Policy
	inFlight int
	addr     string
}

func treeFlags(fs *flag.FlagSet) {
	fs.IntVar(&tree.workers, "workers", 2, "worker processes")
	fs.TextVar(&tree.policy, "policy", coppice.RoundRobin, "how connections are shared out: round-robin, least-loaded, hash, shared or reuseport")
	fs.StringVar(&tree.addr, "addr", "127.0.0.1:0", "with -serve: listen `address`")
}

func acceptFlags(fs *flag.FlagSet) {
	treeFlags(fs)
	fs.IntVar(&tree.inFlight, "inflight", 16, "connections at a time")
}

func httpFlags(fs *flag.FlagSet) {
	treeFlags(fs)
	fs.IntVar(&tree.inFlight, "connections", 100, "connections that stay open")
}

// serveAccept is the tree of accept: each worker writes one byte, its slot, to each connection and
// closes it.
func serveAccept() {
	serveTree(func(ctx context.Context, w *coppice.Worker) error {
		ln, err := w.ListenSpec(ctx, listener())
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
		defer stop()
		if err := w.Ready(); err != nil {
			return err
		}
		err = peers.Bytes(ln, byte('0'+w.Slot()))
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
}

// serveHTTP is the tree of http.
func serveHTTP() {
	serveTree(func(ctx context.Context, w *coppice.Worker) error {
		ln, err := w.ListenSpec(ctx, listener())
		if err != nil {
			return err
		}
		return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(peers.OK)})
	})
}

// fileSize is how much the rows of files send at a time.
const fileSize = 256 << 20

// file makes the file that both servers send, of pages that take no room, and has its processes
// find it.
func file() (remove func(), err error) {
	f, err := os.CreateTemp("", "yardstick")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return func() { _ = os.Remove(f.Name()) }, errors.Join(f.Truncate(fileSize), os.Setenv(peers.FileVar, f.Name()))
}

func listener() coppice.ListenerSpec {
	return coppice.ListenerSpec{Name: "yardstick", Network: "tcp", Address: tree.addr, Policy: tree.policy}
}

func serveTree(worker coppice.WorkerFunc) {
	coppice.Main(coppice.Config{
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) {
			for _, l := range rt.Listeners() {
				fmt.Println("serving on", l.Addr)
			}
		}},
		Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: tree.workers, Worker: worker}},
	})
}

// treeArgs are the arguments that make this program the tree of a command.
func treeArgs(command string) []string {
	return []string{command, "-workers", strconv.Itoa(tree.workers), "-policy", tree.policy.String()}
}

func acceptRows() []row {
	accept := func(start func() (*server, error)) func(time.Duration) (result, error) {
		return func(d time.Duration) (result, error) {
			return loaded(start, "connections/s", true, d, connects)
		}
	}
	inC := func(policy string) func(time.Duration) (result, error) {
		return accept(func() (*server, error) { return startC(policy, tree.workers) })
	}
	return []row{
		{"accept_" + tree.policy.String(), accept(func() (*server, error) { return startTree(treeArgs("accept")...) })},
		{"peer_go_accept_shared", accept(func() (*server, error) { return startPlain("accept", tree.workers) })},
		{"peer_node_accept", accept(func() (*server, error) { return startNode(tree.workers) })},
		{"peer_c_accept_pass", inC("pass")},
		{"peer_c_accept_claim", inC("claim")},
		{"peer_c_accept_shared", inC("shared")},
	}
}

func httpRows() []row {
	load := func(start func() (*server, error)) func(time.Duration) (result, error) {
		return func(d time.Duration) (result, error) { return loaded(start, "requests/s", false, d, keepAlive) }
	}
	return []row{
		{"http_keepalive_coppice", load(func() (*server, error) { return startTree(treeArgs("http")...) })},
		{"http_keepalive_plain", load(func() (*server, error) { return startPlain("http", tree.workers) })},
		{"http_file_coppice", sent(func() (*server, error) { return startTree(treeArgs("http")...) })},
		{"http_file_plain", sent(func() (*server, error) { return startPlain("http", tree.workers) })},
	}
}

// sent is a server that sends a file of fileSize bytes.
func sent(start func() (*server, error)) func(time.Duration) (result, error) {
	return func(d time.Duration) (r result, err error) {
		remove, err := file()
		if err != nil {
			return r, err
		}
		defer remove()
		return loaded(start, "files/s", false, d, download)
	}
}

// loaded starts a server, loads it for d, and counts the processor time of its processes.
// shares reports whether an answer begins with the number of the worker.
func loaded(start func() (*server, error), unit string, shares bool, d time.Duration, generate generator) (r result, err error) {
	s, err := start()
	if err != nil {
		return r, err
	}
	defer s.stop()
	var cpu time.Duration
	l, err := generate(s.addr, tree.inFlight, measured{
		d:     d,
		begin: func() { cpu = s.cpu() },
		end:   func() { cpu = s.cpu() - cpu },
	})
	if err != nil {
		return r, err
	}
	r = l.result(unit)
	r.CPU = float64(cpu.Nanoseconds()) / float64(l.ops)
	if shares {
		r.Jain = l.jain(tree.workers)
	}
	return r, nil
}
