package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// TestEvenShares: 1,000 connections that stay open and ask now and then, over four workers. The
// policies that hand over give each its share, by Jain's index of at least 0.99; what the kernel
// does is printed beside it.
func TestEvenShares(t *testing.T) {
	// A worker that gets no processor for a while misses no more connections than there are
	// clients, which all may wait for it: their number must be small beside a worker's share.
	const workers = 4
	clients, each := 20, 50
	if testing.Short() {
		clients, each = 5, 40
	}
	for _, tt := range []struct {
		policy string
		least  float64
	}{{"round-robin", .99}, {"least-loaded", .99}, {"shared", 0}, {"reuseport", 0}} {
		t.Run(tt.policy, func(t *testing.T) {
			if _, err := coppice.ParsePolicy(tt.policy); err != nil {
				t.Skip(err)
			}
			h := start(t, "-workers", fmt.Sprint(workers), "-quiet", "-policy", tt.policy)
			var mu sync.Mutex
			shares := make([]float64, workers)
			var wg sync.WaitGroup
			for range clients {
				wg.Go(func() {
					var open []*kept
					for range each {
						c, err := dialKept(h.url)
						if err != nil {
							t.Error(err)
							return
						}
						defer c.Close()
						open = append(open, c)
						for _, c := range []*kept{c, open[len(open)/2]} { // the new one, and one of those that wait
							if err := c.ask(); err != nil {
								t.Error(err)
								return
							}
						}
						mu.Lock()
						shares[c.worker]++
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			var sum, squares float64
			for _, n := range shares {
				sum, squares = sum+n, squares+n*n
			}
			jain := sum * sum / (workers * squares)
			t.Logf("%s: shares %v, Jain's index %.4f", tt.policy, shares, jain)
			if sum != float64(clients*each) || jain < tt.least {
				t.Errorf("%v connections, Jain's index %.4f: want %d and at least %v", sum, jain, clients*each, tt.least)
			}
		})
	}
}

// kept is a connection that stays open.
type kept struct {
	net.Conn
	answers *bufio.Reader
	worker  int
	asked   bool
}

func dialKept(url string) (*kept, error) {
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		return nil, err
	}
	return &kept{Conn: c, answers: bufio.NewReader(c)}, nil
}

// ask makes one request, and sees to it that the same worker answers as before.
func (k *kept) ask() error {
	_ = k.SetDeadline(time.Now().Add(runtimetest.Patience))
	fmt.Fprintf(k, "GET / HTTP/1.1\r\nHost: hello\r\n\r\n")
	resp, err := http.ReadResponse(k.answers, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var who struct{ Worker int }
	if err := json.NewDecoder(resp.Body).Decode(&who); err != nil {
		return err
	}
	if k.asked && who.Worker != k.worker {
		return fmt.Errorf("worker %d answers on a connection of worker %d", who.Worker, k.worker)
	}
	k.worker, k.asked = who.Worker, true
	return nil
}
