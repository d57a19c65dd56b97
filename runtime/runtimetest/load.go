package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Counts is the result of a load, as its clients saw it.
type Counts struct {
	OK      int64 // a whole answer with status 200
	Refused int64 // connect: connection refused
	Cut     int64 // reset, or ended before the whole answer
	Hung    int64 // no answer within [Load.Timeout]
	Other   int64 // anything else
	First   error // the first error in Other
}

// Sent returns the number of requests made.
func (c Counts) Sent() int64 { return c.OK + c.Refused + c.Cut + c.Hung + c.Other }

// String returns one line.
func (c Counts) String() string {
	s := fmt.Sprintf("sent %d: ok %d, refused %d, cut %d, hung %d, other %d", c.Sent(), c.OK, c.Refused, c.Cut, c.Hung, c.Other)
	if c.First != nil {
		s += fmt.Sprintf(" (first: %v)", c.First)
	}
	return s
}

// Load is a closed loop of HTTP clients.
type Load struct {
	URL       string
	InFlight  int           // clients, each with one request at a time
	KeepAlive bool          // one connection for each client, otherwise one for each request
	Timeout   time.Duration // of one request; zero = 10 s

	answered *atomic.Int64 // requests answered with status 200 so far
}

// closedIdle is the text of an error of net/http, which does not export it, for a connection that
// ended before the request was written to it.
const closedIdle = "http: server closed idle connection"

// Run makes requests until ctx ends, lets those under way finish, and returns the results of all.
func (l Load) Run(ctx context.Context) Counts {
	if l.Timeout == 0 {
		l.Timeout = 10 * time.Second
	}
	var (
		ok, refused, cut, hung, other atomic.Int64
		first                         error
		once                          sync.Once
		clients                       sync.WaitGroup
	)
	for range l.InFlight {
		clients.Go(func() {
			tr := &http.Transport{DisableKeepAlives: !l.KeepAlive, MaxIdleConnsPerHost: 1}
			defer tr.CloseIdleConnections()
			client := &http.Client{Transport: tr, Timeout: l.Timeout}
			for ctx.Err() == nil {
				switch err := get(client, l.URL); {
				case err == nil:
					ok.Add(1)
					if l.answered != nil {
						l.answered.Add(1)
					}
				case errors.Is(err, syscall.ECONNREFUSED):
					refused.Add(1)
				case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
					hung.Add(1)
				case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
					errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
					strings.Contains(err.Error(), closedIdle):
					cut.Add(1)
				default:
					other.Add(1)
					once.Do(func() { first = err })
				}
			}
		})
	}
	clients.Wait()
	return Counts{ok.Load(), refused.Load(), cut.Load(), hung.Load(), other.Load(), first}
}

func get(client *http.Client, url string) error {
	resp, err := client.Get(url)
	if err != nil {
		if n, ok := errors.AsType[net.Error](err); ok && n.Timeout() {
			return fmt.Errorf("%w: %w", os.ErrDeadlineExceeded, err)
		}
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	return nil
}
