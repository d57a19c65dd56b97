package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/bench/yardstick/peers"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/jobs"
)

// calls is what the flags of calls say.
var calls struct {
	workers int
	size    int
	load    time.Duration
	peer    string
	view    bool
	share   bool
	file    bool
}

// callSizes are the sizes of an input, with their names.
var callSizes = []struct {
	name  string
	bytes int
}{{"100B", 100}, {"100kB", 100_000}, {"10MB", 10_000_000}}

func callFlags(fs *flag.FlagSet) {
	fs.IntVar(&calls.workers, "workers", 2, "workers")
	fs.IntVar(&calls.size, "size", 100, "with -serve: `bytes` of an input")
	fs.DurationVar(&calls.load, "load", time.Second, "with -serve: how long to call")
	fs.StringVar(&calls.peer, "peer", "", "with -serve: protoactor's \"remote\", or the \"least\", instead of a pool of jobs")
	fs.BoolVar(&calls.view, "view", false, "with -serve: the function takes a jobs.View")
	fs.BoolVar(&calls.share, "share", false, "with -serve: the workers share the processors out evenly")
	fs.BoolVar(&calls.file, "file", false, "with -serve: the input is a file in memory, made once")
}

// callRows are calls of a function in another process or thread, by the size of the input.
func callRows() (rows []row) {
	for _, size := range callSizes {
		self := func(args ...string) func(time.Duration) (result, error) {
			return called(func(d time.Duration) (*exec.Cmd, error) {
				exe, err := os.Executable()
				if err != nil {
					return nil, err
				}
				return exec.Command(exe, append([]string{
					"calls", "-serve", "-workers", strconv.Itoa(calls.workers),
					"-size", strconv.Itoa(size.bytes), "-load", d.String(),
				}, args...)...), nil
			})
		}
		script := func(program, name string, source []byte, args ...string) func(time.Duration) (result, error) {
			return called(func(d time.Duration) (*exec.Cmd, error) {
				exe, err := exec.LookPath(program)
				if err != nil {
					return nil, fmt.Errorf("%w: no %s", errSkip, program)
				}
				path, err := buildScript(name, source)
				return exec.Command(exe, append([]string{
					path, strconv.Itoa(calls.workers), strconv.Itoa(size.bytes), fmt.Sprint(d.Seconds()),
				}, args...)...), err
			})
		}
		rows = append(rows,
			row{"calls_coppice_" + size.name, self()},
			row{"calls_coppice_share_" + size.name, self("-share")},
			row{"calls_protoactor_remote_" + size.name, self("-peer", "remote")},
			row{"calls_least_" + size.name, self("-peer", "least")},
			row{"calls_node_threads_" + size.name, script("node", "calls.js", peers.CallsNode)},
			row{"calls_node_threads_transfer_" + size.name, script("node", "calls.js", peers.CallsNode, "transfer")},
			row{"calls_python_pool_" + size.name, script("python3", "calls.py", peers.CallsPython)},
		)
		if size.bytes > 1_000 {
			rows = append(rows, row{"calls_coppice_view_" + size.name, self("-view")})
		}
		if size.bytes > 1_000_000 {
			rows = append(rows,
				row{"calls_coppice_file_" + size.name, self("-file")},
				row{"calls_node_threads_shared_" + size.name, script("node", "calls.js", peers.CallsNode, "shared")},
				row{"calls_python_pool_shared_" + size.name, script("python3", "calls.py", peers.CallsPython, "shared")},
			)
		}
	}
	return rows
}

// called runs a program that calls for d, from when it prints "begin" until it prints how it went,
// and counts the processor time of its processes.
func called(command func(d time.Duration) (*exec.Cmd, error)) func(time.Duration) (result, error) {
	return func(d time.Duration) (r result, err error) {
		cmd, err := command(d)
		if err != nil {
			return r, err
		}
		s := &server{}
		lines, err := s.startPiped(cmd)
		if err != nil {
			return r, err
		}
		defer s.stop()
		if !lines.Scan() || lines.Text() != "begin" {
			return r, errors.Join(fmt.Errorf("it says %q", lines.Text()), lines.Err())
		}
		cpu := s.cpu()
		var how callStats
		if !lines.Scan() {
			return r, errors.Join(errors.New("it ended"), lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &how); err != nil {
			return r, err
		}
		cpu = s.cpu() - cpu
		return result{
			Unit: "calls/s", Value: float64(how.N) / how.Seconds,
			CPU: float64(cpu.Nanoseconds()) / float64(how.N), P50: how.P50, P99: how.P99,
		}, nil
	}
}

// callStats is what a program says of its calls.
type callStats struct {
	N       int     `json:"n"`
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50_us"`
	P99     float64 `json:"p99_us"`
}

// callUntil makes calls for d, from twice as many goroutines as there are workers. call gets the
// number of the goroutine.
func callUntil(d time.Duration, call func(which int) error) (callStats, error) {
	type ended struct {
		took []time.Duration
		err  error
	}
	ends := make(chan ended)
	began := time.Now()
	for i := range 2 * calls.workers {
		go func() { // ends with d
			var e ended
			for t := time.Now(); e.err == nil && time.Since(began) < d; {
				e.err = call(i)
				u := time.Now()
				e.took, t = append(e.took, u.Sub(t)), u
			}
			ends <- e
		}()
	}
	var all []time.Duration
	var err error
	for range 2 * calls.workers {
		e := <-ends
		all, err = append(all, e.took...), errors.Join(err, e.err)
	}
	seconds := time.Since(began).Seconds()
	slices.Sort(all)
	at := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))].Nanoseconds()) / 1e3 }
	return callStats{len(all), seconds, at(0.5), at(0.99)}, err
}

// tellCalls warms up, prints "begin", makes calls, checks their answers, and prints how it went.
// call gets the number of the goroutine, as in callUntil.
func tellCalls(call func(which int, b []byte) (int64, error)) {
	b := bytes.Repeat([]byte{1}, calls.size)
	checked := func(which int) error {
		got, err := call(which, b)
		if want := peers.SumPages(b); err == nil && got != want {
			return fmt.Errorf("got %d, want %d", got, want)
		}
		return err
	}
	_, err := callUntil(300*time.Millisecond, checked)
	fmt.Println("begin")
	how, failed := callUntil(calls.load, checked)
	if err := errors.Join(err, failed); err != nil {
		fmt.Fprintln(os.Stderr, "yardstick:", err)
		os.Exit(1)
	}
	_ = json.NewEncoder(os.Stdout).Encode(how)
}

// serveCalls makes the calls of one row.
func serveCalls() {
	if calls.peer != "" {
		call, err := peerCalls()
		if err != nil {
			fmt.Fprintln(os.Stderr, "yardstick:", err)
			os.Exit(1)
		}
		tellCalls(call)
		<-time.After(time.Hour) // a signal comes before
	}
	var env coppice.Environment
	if calls.share {
		env.MaxProcs = coppice.FairShare
	}
	coppice.Main(coppice.Config{
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) {
			call := func(_ int, b []byte) (int64, error) { return jobs.Call[int64](context.Background(), rt, "sum", b) }
			switch {
			case calls.view:
				call = func(_ int, b []byte) (int64, error) {
					return jobs.Call[int64](context.Background(), rt, "sum/view", b)
				}
			case calls.file:
				call = callWithFile(rt)
			}
			go tellCalls(call) // ends with its calls
		}},
		Children: []coppice.ChildSpec{jobs.Pool(jobs.Config{Pool: coppice.Pool{Name: "sum", Size: calls.workers, Environment: env}},
			jobs.Handle("sum", func(_ context.Context, b []byte) (int64, error) { return peers.SumPages(b), nil }),
			jobs.Handle("view", func(_ context.Context, b jobs.View) (int64, error) { return peers.SumPages(b), nil }),
			jobs.Handle("file", sumFile),
		)},
	})
}

// callWithFile makes a file in memory and returns what calls with it.
func callWithFile(rt *coppice.Runtime) func(int, []byte) (int64, error) {
	fd, err := unix.MemfdCreate("input", unix.MFD_CLOEXEC)
	if err == nil {
		_, err = unix.Pwrite(fd, bytes.Repeat([]byte{1}, calls.size), 0)
	}
	return func(int, []byte) (int64, error) {
		if err != nil {
			return 0, err
		}
		fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return 0, err
		}
		return jobs.Call[int64](context.Background(), rt, "sum/file", os.NewFile(uintptr(fd), "input"))
	}
}

// sumFile reads a file where it is.
func sumFile(_ context.Context, f *os.File) (int64, error) {
	defer f.Close()
	i, err := f.Stat()
	if err != nil {
		return 0, err
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(i.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Munmap(b) }() // it is mapped
	return peers.SumPages(b), nil
}

// peerCalls returns what calls a worker of the peer that the flag names.
func peerCalls() (func(which int, b []byte) (int64, error), error) {
	if calls.peer == "remote" {
		return peers.Remote(calls.workers, os.Stderr, peerVar+"=remote")
	}
	call, err := peers.Pool(calls.workers, func(remote *os.File) error {
		_, err := startPeer("pool", remote)
		return err
	})
	return func(_ int, b []byte) (int64, error) { return call(b) }, err
}

// buildScript writes a script to a file, until removeBuilt.
func buildScript(name string, source []byte) (string, error) {
	built.Lock()
	defer built.Unlock()
	dir, err := buildDir()
	path := filepath.Join(dir, name)
	if err == nil {
		err = os.WriteFile(path, source, 0o600)
	}
	return path, err
}
