//go:build linux

// Command mistakes makes one of the usual mistakes of a first program, named by its first argument,
// for TestMistakes, which builds it with this file in the place of main.go.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/supervisor"
)

// startTimeout is long enough for a start on a busy machine.
const startTimeout = 4 * time.Second

// serve is what a worker should do.
func serve(ctx context.Context, w *coppice.Worker) error { return serveOn(ctx, w, "127.0.0.1:0") }

func serveOn(ctx context.Context, w *coppice.Worker, address string) error {
	ln, err := w.Listen("tcp", address)
	if err != nil {
		return err
	}
	return w.Serve(ctx, ln, &http.Server{})
}

// tree is a tree of one worker.
func tree(fn coppice.WorkerFunc) coppice.Config {
	return coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: 1, Worker: fn, StartTimeout: startTimeout}}}
}

// mistakes are functions that do not return.
var mistakes = map[string]func(){
	// Of main.
	"main panics in children": func() {
		if coppice.IsChild() {
			panic("no configuration")
		}
		coppice.Serve(1, serve)
	},
	"main exits in children": func() {
		if coppice.IsChild() {
			fmt.Println("cannot lock /run/app.pid")
			os.Exit(1)
		}
		coppice.Serve(1, serve)
	},
	"main returns in children": func() {
		if coppice.IsChild() {
			return
		}
		coppice.Serve(1, serve)
	},
	"main hangs in children": func() {
		if coppice.IsChild() {
			select {}
		}
		cfg := tree(serve)
		cfg.ListenerIsolation = coppice.GoroutineIsolation // web/0 is the first child
		coppice.Main(cfg)
	},
	"net.Listen in main": func() {
		ln, err := net.Listen("tcp", os.Getenv("ADDRESS"))
		if err != nil {
			log.Fatal(err)
		}
		coppice.Serve(1, func(ctx context.Context, w *coppice.Worker) error { return w.Serve(ctx, ln, &http.Server{}) })
	},

	// Of a worker, before it is ready.
	"no Ready": func() {
		coppice.Main(tree(func(ctx context.Context, w *coppice.Worker) error {
			fmt.Println("working")
			<-ctx.Done()
			return nil
		}))
	},
	"ListenAndServe": func() {
		coppice.Main(tree(func(context.Context, *coppice.Worker) error {
			return http.ListenAndServe("127.0.0.1:0", nil)
		}))
	},
	"ListenAndServe in each worker": func() {
		coppice.Main(tree(func(context.Context, *coppice.Worker) error {
			ln, err := net.Listen("tcp", "127.0.0.1:0") // in place of another worker
			if err != nil {
				return err
			}
			return http.ListenAndServe(ln.Addr().String(), nil)
		}))
	},
	"worker returns nil": func() {
		coppice.Main(tree(func(context.Context, *coppice.Worker) error { return nil }))
	},
	"worker returns an error": func() {
		coppice.Main(tree(func(context.Context, *coppice.Worker) error { return errors.New("no database") }))
	},
	"worker panics": func() {
		coppice.Main(tree(func(context.Context, *coppice.Worker) error { panic("no database") }))
	},
	"log.Fatal in a worker": func() {
		coppice.Main(tree(func(context.Context, *coppice.Worker) error {
			log.SetFlags(0)
			log.Print("connecting")
			log.Fatal("no database")
			return nil
		}))
	},
	"Prepare hangs": func() {
		cfg := tree(serve)
		p := cfg.Children[0].(coppice.Pool)
		p.Prepare = func(ctx context.Context, _ *coppice.Worker) error { <-ctx.Done(); return ctx.Err() }
		cfg.Children[0] = p
		coppice.Main(cfg)
	},
	"error after Ready": func() {
		cfg := tree(func(_ context.Context, w *coppice.Worker) error {
			if err := w.Ready(); err != nil {
				return err
			}
			return errors.New("no database")
		})
		p := cfg.Children[0].(coppice.Pool)
		p.OTP, p.Intensity = true, supervisor.Intensity{Max: 1, Period: time.Minute} // so that it gives up at once
		cfg.Children[0] = p
		coppice.Main(cfg)
	},

	// Of addresses and names.
	"address without a port": func() {
		coppice.Main(tree(func(ctx context.Context, w *coppice.Worker) error { return serveOn(ctx, w, "localhost") }))
	},
	"address not of this machine": func() {
		coppice.Main(tree(func(ctx context.Context, w *coppice.Worker) error { return serveOn(ctx, w, "192.0.2.1:80") }))
	},
	"Listen udp": func() {
		coppice.Main(tree(func(_ context.Context, w *coppice.Worker) error {
			_, err := w.Listen("udp", "127.0.0.1:0")
			return err
		}))
	},
	"ListenPacket tcp": func() {
		coppice.Main(tree(func(_ context.Context, w *coppice.Worker) error {
			_, err := w.ListenPacket("tcp", "127.0.0.1:0")
			return err
		}))
	},
	"unknown listener": func() {
		cfg := tree(func(ctx context.Context, w *coppice.Worker) error {
			_, err := w.Listener(ctx, "htpp")
			return err
		})
		cfg.Children = append([]coppice.ChildSpec{
			coppice.ListenerSpec{Name: "http", Network: "tcp", Address: "127.0.0.1:0"},
			coppice.ListenerSpec{Name: "admin", Network: "tcp", Address: "127.0.0.2:0"},
		}, cfg.Children...)
		coppice.Main(cfg)
	},

	// Of other children.
	"program hangs": func() {
		coppice.Main(coppice.Config{Children: []coppice.ChildSpec{coppice.Process{
			Name: "redis", Command: []string{"sh", "-c", "echo loading; sleep 3600"}, Ready: coppice.Ready{Line: "Ready to accept"}, StartTimeout: startTimeout,
		}}})
	},
	"program ends": func() {
		coppice.Main(coppice.Config{Children: []coppice.ChildSpec{coppice.Supervisor{Name: "work", Children: []coppice.ChildSpec{coppice.Process{
			Name: "redis", Command: []string{"sh", "-c", "echo no such file; exit 1"}, Ready: coppice.Ready{Line: "Ready to accept"}, StartTimeout: startTimeout,
		}}}}})
	},
	"Load fails": func() {
		coppice.Main(coppice.Config{
			Load:     func(context.Context) ([]byte, error) { return os.ReadFile("/none/app.json") },
			Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Worker: serve}},
		})
	},
	"gives up below": func() {
		coppice.Main(coppice.Config{Children: []coppice.ChildSpec{coppice.Supervisor{
			Name: "below", Intensity: supervisor.Intensity{Max: 1, Period: time.Minute},
			Children: []coppice.ChildSpec{coppice.Func{Name: "tick", Run: func(context.Context) error { return errors.New("no clock") }}},
		}}})
	},
}

func main() {
	if f, ok := mistakes[os.Args[1]]; ok {
		f()
		return
	}
	log.Fatalf("no such mistake: %q", os.Args[1])
}
