package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/coppice-go/coppice/examples/internal/chaos"
	coppice "github.com/coppice-go/coppice/runtime"
)

const clients = 32

// harm has clients send numbered datagrams, each the next one when it has its answer, kills each
// worker, and reloads the tree. It ends the program with an error if a kill costs more
// datagrams than the one that the worker had in its hands, or a reload any.
func harm(rt *coppice.Runtime, addr string) {
	crowd := chaos.NewCrowd("answered", "given up", "failed")
	for range clients {
		conn, err := net.Dial("udp", addr)
		if err != nil {
			log.Fatal(err)
		}
		defer conn.Close()
		n, b := 0, make([]byte, 64)
		crowd.Add(func(ctx context.Context) (string, error) {
			defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
			n++
			if _, err := fmt.Fprint(conn, n); err != nil {
				return "", err
			}
			for {
				size, err := conn.Read(b)
				if err != nil {
					_ = conn.SetReadDeadline(time.Time{})
					return "", err
				}
				if strings.HasPrefix(string(b[:size]), strconv.Itoa(n)+" ") {
					return "answered", nil
				}
			}
		})
	}
	crowd.After("the start", map[string]int{"failed": 0, "given up": 0})
	for _, name := range chaos.Workers(rt, "echo") {
		crowd.Kill(rt, name)
		crowd.After("kill -9 of "+name, map[string]int{"failed": 0, "given up": 1})
	}
	chaos.Reload(rt)
	crowd.After("a reload", map[string]int{"failed": 0, "given up": 0})
	crowd.Stop()
}
