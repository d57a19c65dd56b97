package main

import (
	"crypto/tls"
	"net/http"
	"os"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

// TestResume makes a client's connections to four workers, one after another, and
// kills each worker in the middle: a replacement reads the tickets of its
// predecessor. 1,000 connections with COPPICE_SOAK=1.
func TestResume(t *testing.T) {
	connections := 40
	if os.Getenv("COPPICE_SOAK") != "" {
		connections = 1000
	}
	p := runtimetest.Start(t, nil, "-addr", "127.0.0.1:0")
	url := p.Await(`^(https://[^/]+/)`)[1]
	client := http.Client{Timeout: runtimetest.Patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1)},
	}}
	kids := runtimetest.Children(t, p.PID()) // the listener process, and the workers
	resumed := 0
	for i := range connections {
		if i == connections/2 {
			for _, pid := range kids[1:] {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				runtimetest.Eventually(t, "a replacement", func() bool {
					return !runtimetest.Alive(pid) && len(runtimetest.Children(t, p.PID())) == len(kids)
				})
			}
		}
		resp, err := client.Get(url)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		resp.Body.Close()
		if resp.TLS.DidResume {
			resumed++
		}
	}
	t.Logf("%d of %d resumed", resumed, connections)
	if resumed != connections-1 {
		t.Errorf("%d of %d resumed, want all but the first", resumed, connections)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
