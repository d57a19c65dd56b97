package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"
)

// demonstrate kills the worker that is charging a card while another connection
// waits behind it, and prints what became of both, from Jaeger. It returns the
// traces.
func demonstrate(ctx context.Context, shop string, jaeger jaegerAPI, out io.Writer) ([]panel, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	defer http.DefaultClient.CloseIdleConnections()
	if err := poll(ctx, "wait for Jaeger at "+jaeger.base, func() (bool, error) {
		_, err := jaeger.get(ctx, "/api/traces/1")
		return err == nil, err
	}); err != nil {
		return nil, err
	}
	began := time.Now()
	died, waited, err := accident(ctx, shop)
	if err != nil {
		return nil, err
	}
	charge, err := whole(ctx, jaeger, died.trace, "charge card", "GET /charge", "serve", "hand-off", "accept")
	if err != nil {
		return nil, err
	}
	page, err := whole(ctx, jaeger, waited.trace, "GET /", "serve", "accept")
	if err != nil {
		return nil, err
	}
	var restart []span
	if err := poll(ctx, "find the restart", func() (bool, error) {
		traces, err := jaeger.find(ctx, "restart", began)
		if len(traces) > 0 {
			restart = traces[0]
		}
		return len(traces) > 0, err
	}); err != nil {
		return nil, err
	}
	panels := story(died.pid, waited.pid, charge, page, restart)
	for _, p := range panels {
		fmt.Fprintf(out, "\n%s:\n\n", p.title)
		waterfall(out, p.spans)
	}
	return panels, nil
}

// story describes the traces.
func story(died, waited int, charge, page, restart []span) []panel {
	return []panel{
		{fmt.Sprintf("The card that was being charged when worker %d was killed", died), charge},
		{fmt.Sprintf("The connection that waited behind it, and was served by worker %d", waited), page},
		{"What the supervisor did; the arrows lead to what the worker was at", restart},
	}
}

// answered is a request that was begun by a worker.
type answered struct {
	pid   int
	trace string
}

// accident makes one request that a worker does not live to finish, and one that
// waits for the same worker.
func accident(ctx context.Context, shop string) (died, waited answered, err error) {
	for range 20 { // the connection behind must be with that worker, and not yet taken from it
		if died, waited, err = tryAccident(ctx, shop); !errors.Is(err, errNobodyWaits) {
			return died, waited, err
		}
	}
	return died, waited, err
}

var errNobodyWaits = errors.New("no connection waits behind the one that is served")

func tryAccident(ctx context.Context, shop string) (died, waited answered, err error) {
	first, body, err := ask(ctx, shop+"/charge?ms=5000")
	if err != nil {
		return died, waited, err
	}
	defer body.Close()
	type result struct {
		answered
		err error
	}
	behind := make(chan result, 1)
	for range 2 { // one of two goes to the worker that is busy
		go func() { // ends with its answer, or with ctx
			a, body, err := ask(ctx, shop+"/")
			if err == nil {
				body.Close()
			}
			behind <- result{a, err}
		}()
		select {
		case r := <-behind: // the other worker's
			if r.err != nil {
				return died, waited, r.err
			}
			continue
		case <-time.After(40 * time.Millisecond):
		}
		p, err := os.FindProcess(first.pid)
		if err != nil {
			return died, waited, err
		}
		if err := p.Kill(); err != nil {
			return died, waited, err
		}
		r := <-behind
		return first, r.answered, r.err
	}
	return died, waited, errNobodyWaits
}

// ask makes one request on a connection of its own, and returns when the answer
// has begun.
func ask(ctx context.Context, url string) (answered, io.Closer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return answered{}, nil, err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answered{}, nil, err
	}
	pid, err := strconv.Atoi(resp.Header.Get("X-Pid"))
	return answered{pid, resp.Header.Get("X-Trace")}, resp.Body, err
}

// whole returns a trace once it has the spans that its end consists of.
func whole(ctx context.Context, jaeger jaegerAPI, id string, names ...string) (spans []span, err error) {
	err = poll(ctx, "wait for trace "+id, func() (bool, error) {
		spans, err = jaeger.trace(ctx, id)
		if err != nil {
			return false, err
		}
		for _, name := range names {
			if !slices.ContainsFunc(spans, func(s span) bool { return s.Name == name }) {
				return false, fmt.Errorf("%d spans, and no %q", len(spans), name)
			}
		}
		return true, nil
	})
	return spans, err
}
