package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	coppice "github.com/coppice-go/coppice/runtime"
)

// growths are what an operator does with all of a tree at once, with the sizes that are measured.
var growths = []struct {
	name  string
	sizes []int
	start func(size int) coppice.Config
	once  func(rt *coppice.Runtime, size int) error
}{
	{"reload", []int{10, 25, 50, 100}, processTree, func(rt *coppice.Runtime, _ int) error { return rt.Reload(context.Background()) }},
	{"snapshot", []int{100, 250, 500, 1000}, goroutineTree, func(rt *coppice.Runtime, size int) error {
		n := 0
		rt.Snapshot().Walk(func(t coppice.Tree) {
			if t.Role == "worker" {
				n++
			}
		})
		return counted(n, size)
	}},
	{"actors", []int{1000, 2500, 5000, 10_000}, func(int) coppice.Config { return processTree(1) }, func(rt *coppice.Runtime, size int) error {
		n := len(rt.System().Actors())
		if n == size {
			return nil
		}
		for ; n < size; n++ { // the first time, which is not measured
			idle := func() actor.Actor { return actor.ReceiveFunc(func(actor.Context) {}) }
			if _, err := rt.System().Spawn(context.Background(), "idle"+strconv.Itoa(n), idle); err != nil {
				return err
			}
		}
		return counted(len(rt.System().Actors()), size)
	}},
}

func counted(n, want int) error {
	if n != want {
		return fmt.Errorf("%d, want %d", n, want)
	}
	return nil
}

func processTree(size int) coppice.Config {
	return coppice.Config{
		Logger:   slog.New(slog.DiscardHandler),
		Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: size, Worker: readyWorker}},
	}
}

func goroutineTree(size int) coppice.Config {
	return coppice.Config{
		Logger:   slog.New(slog.DiscardHandler),
		Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: size, Worker: readyWorker, Isolation: coppice.GoroutineIsolation}},
	}
}

func readyWorker(ctx context.Context, w *coppice.Worker) error {
	if err := w.Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// serveGrowth is the tree of a row, which measures itself: the arguments are the row's number, the
// size and the time. It prints how often, in what time, and with what processor time.
func serveGrowth() {
	var which, size int
	var d time.Duration // in nanoseconds
	if _, err := fmt.Sscan(os.Getenv(growthVar), &which, &size, &d); err != nil {
		fmt.Fprintln(os.Stderr, "yardstick:", err)
		os.Exit(2)
	}
	g := growths[which]
	cfg := g.start(size)
	cfg.Hooks.Started = func(rt *coppice.Runtime) {
		go func() { // ends with the process
			err := g.once(rt, size) // the first time is not measured
			cpu := selfCPU() + childrenCPU()
			n, began := 0, time.Now()
			for ; err == nil && (n == 0 || time.Since(began) < d); n++ {
				err = g.once(rt, size)
			}
			took := time.Since(began)
			if err != nil {
				fmt.Fprintln(os.Stderr, "yardstick:", err)
			}
			fmt.Println(n, took.Nanoseconds(), (selfCPU() + childrenCPU() - cpu).Nanoseconds())
			_ = rt.Shutdown(context.Background())
		}()
	}
	coppice.Main(cfg)
}

// growthVar tells a process what serveGrowth is to measure.
const growthVar = "YARDSTICK_GROWTH"

func growthRows() (rows []row) {
	for which, g := range growths {
		for _, size := range g.sizes {
			rows = append(rows, row{fmt.Sprintf("growth_%s_%d", g.name, size), func(d time.Duration) (r result, err error) {
				exe, err := os.Executable()
				if err != nil {
					return r, err
				}
				cmd := exec.Command(exe, "growth", "-serve")
				cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d %d", growthVar, which, size, d.Nanoseconds()))
				s := &server{}
				lines, err := s.startPiped(cmd)
				if err != nil {
					return r, err
				}
				defer s.stop()
				var n, took, cpu float64
				if lines.Scan(); lines.Err() == nil {
					_, err = fmt.Sscan(lines.Text(), &n, &took, &cpu)
				}
				if err = errors.Join(err, lines.Err()); err != nil || n == 0 {
					return r, fmt.Errorf("%q: %w", lines.Text(), err)
				}
				ms := took / n / 1e6
				return result{Unit: "ms", Value: ms, P50: ms * 1e3, CPU: max(1, cpu/n)}, nil
			}})
		}
	}
	return rows
}
