package main

import (
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/coppice-go/coppice/examples/examplestest"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// ends counts how streams ended, at their clients.
type ends struct {
	told, finished, other atomic.Int64
}

func (e *ends) String() string {
	return fmt.Sprintf("%d told to ask again, %d went on to their end, %d otherwise", e.told.Load(), e.finished.Load(), e.other.Load())
}

// streamer is a client that has one stream after another.
type streamer struct {
	conn       *grpc.ClientConn
	method     string
	request    proto.Message
	ends       *ends
	generation atomic.Int64 // of the worker that it hears
}

func (c *streamer) run(ctx context.Context, t *testing.T) {
	for ctx.Err() == nil {
		s, err := open(ctx, c.conn, c.method, c.request)
		for answer := new(wrapperspb.StringValue); err == nil; {
			if err = s.RecvMsg(answer); err == nil {
				var name string
				var generation int64
				if _, err := fmt.Sscanf(answer.Value, "%s of generation %d", &name, &generation); err != nil {
					t.Errorf("%q: %v", answer.Value, err)
				}
				c.generation.Store(generation)
			}
		}
		st := status.Convert(err)
		switch {
		case ctx.Err() != nil: // the test is over
		case err == io.EOF:
			c.ends.finished.Add(1)
		case st.Code() == codes.Unavailable && st.Message() == toldToAsk:
			c.ends.told.Add(1)
		default:
			c.ends.other.Add(1)
			t.Errorf("a stream ended with %v", err)
		}
	}
}

// TestReloads: the program is reloaded again and again under streams, some without an
// end and some that take no notice. Each ends by its worker's word or of itself, each
// connection of a worker that goes has a GOAWAY, and nothing is reset.
func TestReloads(t *testing.T) {
	reloads := 20
	if testing.Short() {
		reloads = 3
	}
	const clients = 8 // of each kind
	p := runtimetest.Start(t, nil, "-addr", "127.0.0.1:0")
	addr := p.Await(`^grpc://([^/]+)/`)[1]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var (
		w       wire
		ended   ends
		all     []*streamer
		running sync.WaitGroup
	)
	for i := range 2 * clients {
		c := &streamer{conn: dial(t, addr, grpc.WithContextDialer(w.dial)), method: methodTick, request: new(emptypb.Empty), ends: &ended}
		if i >= clients {
			c.method, c.request = methodCount, wrapperspb.UInt32(3)
		}
		all = append(all, c)
		running.Go(func() { c.run(ctx, t) })
	}
	examplestest.Reload(t, p, reloads, func(generation int) bool {
		for _, c := range all {
			if c.generation.Load() != int64(generation) {
				return false
			}
		}
		return true
	})
	cancel()
	running.Wait()
	t.Logf("%d reloads: streams: %v; %v", reloads, &ended, &w)
	if n := ended.told.Load(); n < int64(reloads*clients) {
		t.Errorf("%d streams were told, want each of %d at each of %d reloads", n, clients, reloads)
	}
	if n := w.told.Load(); n < int64(2*reloads*clients) {
		t.Errorf("%d connections had GOAWAY, want each of %d at each of %d reloads", n, 2*clients, reloads)
	}
	if ended.finished.Load() == 0 || ended.other.Load() != 0 || w.ended.Load() != 0 || w.resets.Load() != 0 || w.broken.Load() != 0 {
		t.Error("want none that ended without a word")
	}
	end(t, p)
}

// TestDeadline: a stream that outlasts the drain is cut at its deadline, and not
// before; its connection had a GOAWAY long since, and is counted as forced.
func TestDeadline(t *testing.T) {
	const shutdown = 3 * time.Second
	p := runtimetest.Start(t, nil, "-addr", "127.0.0.1:0", "-workers", "1", "-shutdown", shutdown.String())
	addr := p.Await(`^grpc://([^/]+)/`)[1]
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
	defer cancel()
	var w wire
	s, err := open(ctx, dial(t, addr, grpc.WithContextDialer(w.dial)), methodCount, wrapperspb.UInt32(1e6))
	if err != nil {
		t.Fatal(err)
	}
	next := func() error { return s.RecvMsg(new(wrapperspb.StringValue)) }
	if err := next(); err != nil {
		t.Fatal(err)
	}
	asked := time.Now()
	p.Signal(syscall.SIGHUP)
	for err == nil {
		err = next()
	}
	if took := time.Since(asked); took < shutdown*9/10 {
		t.Errorf("cut after %v, want the drain's deadline", took)
	}
	if status.Code(err) != codes.Unavailable || w.told.Load() != 1 {
		t.Errorf("%v; %v", err, &w)
	}
	p.Await(`connections cut name=rpc/0 forced=1 `)
	end(t, p)
}

func dial(t *testing.T, addr string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, append(opts,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(retries))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
