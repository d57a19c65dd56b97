// Node is a pool of Node processes, which serve HTTP on one socket of the master.
//
//	go run ./examples/node -addr 127.0.0.1:8070
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
	addr := flag.String("addr", "127.0.0.1:8070", "listen `address`; port 0 picks one")
	workers := flag.Int("workers", 2, "processes")
	script := flag.String("script", "examples/node/server.js", "`file` that each process runs")
	policy := coppice.Shared
	flag.TextVar(&policy, "policy", policy, "shared, or reuseport: a `socket` for each process")
	flag.Parse()

	coppice.Main(coppice.Config{
		Hooks: coppice.Hooks{Started: announce},
		Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "http", Network: "tcp", Address: *addr, Policy: policy},
			coppice.Pool{
				Name: "web", Size: *workers, Intensity: supervisor.Intensity{Max: 250, Period: 10 * time.Second},
				Command: []string{"node", *script}, Listeners: []string{"http"},
				Ready: coppice.Ready{Line: "^listening$"}, // Node speaks to no NOTIFY_SOCKET by itself
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
