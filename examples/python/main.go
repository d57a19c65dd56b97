// Python is a pool of Python processes, which serve HTTP on one socket of the master.
//
//	go run ./examples/python -addr 127.0.0.1:8060
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/supervisor"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8060", "listen `address`; port 0 picks one")
	workers := flag.Int("workers", 2, "processes")
	script := flag.String("script", "examples/python/server.py", "`file` that each process runs")
	policy := coppice.Shared
	flag.TextVar(&policy, "policy", policy, "shared, or reuseport: a `socket` for each process")
	flag.Parse()

	coppice.Main(coppice.Config{
		Hooks: coppice.Hooks{Started: announce},
		Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "http", Network: "tcp", Address: *addr, Policy: policy},
			coppice.Pool{
				Name: "web", Size: *workers, Intensity: supervisor.Intensity{Max: 250, Period: 10 * time.Second},
				Command: []string{"python3", *script}, Listeners: []string{"http"},
				Ready:    coppice.Ready{Notify: true},                 // READY=1
				Liveness: coppice.Liveness{Timeout: 10 * time.Second}, // WATCHDOG=1
			},
		},
	})
}

func announce(rt *coppice.Runtime) {
	for _, l := range rt.Listeners() {
		fmt.Printf("http://%s  master pid %d\n", l.Addr, os.Getpid())
	}
	fmt.Print(rt.Snapshot())
}
