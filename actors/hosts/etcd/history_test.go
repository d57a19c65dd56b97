package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/hoststest"
)

// A history is what clients of an engine have done, to be checked by Porcupine.
type history struct {
	begun time.Time
	mu    sync.Mutex
	ops   map[string][]porcupine.Operation // by what is checked alone
	next  int
	wrong []string
	held  map[string][]span // holdings by name
	done  map[string]int    // operations by how they ended
}

// span is a holding: when its registration was asked for and answered.
type span struct {
	call, ret int64
	fence     uint64
}

// input is an operation on one register or one name.
type input struct {
	kind    string // read, write; register, refused, release
	value   int    // written; the holding
	unknown bool   // it may have been done, at any time since, or never
}

func newHistory() *history {
	return &history{begun: time.Now(), ops: make(map[string][]porcupine.Operation), held: make(map[string][]span), done: make(map[string]int)}
}

func (h *history) now() int64 { return int64(time.Since(h.begun)) }

// add enters an operation that has ended now.
func (h *history) add(key string, client int, in input, out int, call int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ret := int64(time.Since(h.begun))
	if h.done[in.kind]++; in.unknown {
		h.done[in.kind+" in doubt"]++
		ret = math.MaxInt64
		h.next++
		client = 1000 + h.next // it goes on while its client does something else
	}
	h.ops[key] = append(h.ops[key], porcupine.Operation{ClientId: client, Input: in, Output: out, Call: call, Return: ret})
}

func (h *history) id() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	return h.next
}

// check returns what is not linearizable.
func (h *history) check() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	model := porcupine.Model{Init: func() any { return 0 }, Step: func(state, in, out any) (bool, any) {
		i := in.(input)
		switch i.kind {
		case "write":
			return true, i.value
		case "read":
			return out.(int) == state.(int), state
		case "register":
			if state.(int) == 0 {
				return true, i.value
			}
			return i.unknown, state
		case "refused":
			return state.(int) != 0, state
		default: // release
			if state.(int) == i.value {
				return true, 0
			}
			return i.unknown, state
		}
	}}
	wrong := h.wrong
	for key, ops := range h.ops {
		if r := porcupine.CheckOperationsTimeout(model, ops, time.Minute); r != porcupine.Ok {
			wrong = append(wrong, fmt.Sprintf("%s: %d operations: %v", key, len(ops), r))
		}
	}
	for name, held := range h.held {
		slices.SortFunc(held, func(a, b span) int { return int(a.call - b.call) })
		for i, b := range held {
			for _, a := range held[:i] {
				if a.ret < b.call && a.fence >= b.fence {
					wrong = append(wrong, fmt.Sprintf("%s: fence %d, and later %d", name, a.fence, b.fence))
				}
			}
		}
	}
	return wrong
}

// registers reads and writes four registers until ctx ends.
func (h *history) registers(ctx context.Context, e hosts.Engine, client int) {
	r := rand.New(rand.NewPCG(uint64(client), 7))
	for i := 0; ctx.Err() == nil; i++ {
		key := fmt.Sprint("register/", r.IntN(4))
		in := input{kind: "read"}
		if r.IntN(2) == 0 {
			in = input{kind: "write", value: client*1_000_000 + i + 1}
		}
		out := 0
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		call := h.now()
		var err error
		if in.kind == "write" {
			_, err = e.Commit(limit, hosts.Txn{Then: []hosts.Op{{Key: key, Value: fmt.Append(nil, in.value)}}})
		} else {
			out, err = read(limit, e, key, r.IntN(2) == 0)
		}
		cancel()
		if in.unknown = err != nil; in.kind == "write" || err == nil {
			h.add(key, client, in, out, call)
		}
		pause(ctx, time.Duration(r.IntN(10))*time.Millisecond)
	}
}

func read(ctx context.Context, e hosts.Engine, key string, list bool) (int, error) {
	var entries []hosts.Entry
	if list {
		l, err := e.List(ctx, key)
		if err != nil {
			return 0, err
		}
		entries = l.Entries
	} else {
		res, err := e.Commit(ctx, hosts.Txn{Read: []string{key}})
		if err != nil {
			return 0, err
		}
		entries = res.Entries
	}
	v := 0
	if len(entries) == 1 {
		if _, err := fmt.Sscan(string(entries[0].Value), &v); err != nil {
			return 0, err
		}
	}
	return v, nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// names registers and releases two names until ctx ends, and looks them up all the time: what
// Lookup tells never goes back.
func (h *history) names(ctx context.Context, n *hosts.Names, client int) {
	r := rand.New(rand.NewPCG(uint64(client), 8))
	last := make(map[string]uint64)
	for ctx.Err() == nil {
		name := fmt.Sprint("name-", r.IntN(2))
		if holder, err := n.Lookup(name); err == nil {
			if holder.Fence.Number < last[name] {
				h.mu.Lock()
				h.wrong = append(h.wrong, fmt.Sprintf("%s: lookup of client %d tells %d after %d", name, client, holder.Fence.Number, last[name]))
				h.mu.Unlock()
			}
			last[name] = holder.Fence.Number
		}
		id, call := h.id(), h.now()
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		holding, err := n.Register(limit, name, nil)
		cancel()
		switch {
		case errors.Is(err, actors.ErrNameTaken):
			h.add(name, client, input{kind: "refused"}, 0, call)
		case err != nil: // it may have been held, and be let go of since
			h.add(name, client, input{kind: "register", value: id, unknown: true}, 0, call)
			h.add(name, client, input{kind: "release", value: id, unknown: true}, 0, call)
		default:
			h.add(name, client, input{kind: "register", value: id}, 0, call)
			registered := h.now()
			h.mu.Lock()
			h.held[name] = append(h.held[name], span{call, registered, holding.Fence().Number})
			h.mu.Unlock()
			pause(holding.Context(), time.Duration(r.IntN(60))*time.Millisecond)
			call = h.now()
			limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			err := holding.Release(limit)
			cancel()
			in := input{kind: "release", value: id, unknown: err != nil}
			if !errors.Is(context.Cause(holding.Context()), hosts.ErrReleased) {
				in.unknown, call = true, registered // its lease ends, or has ended
			}
			h.add(name, client, in, 0, call)
		}
		pause(ctx, time.Duration(r.IntN(20))*time.Millisecond)
	}
}

// stale is an engine whose lists are up to 20 ms old.
type stale struct {
	hosts.Engine
	mu   sync.Mutex
	last map[string]hosts.Listing
	at   map[string]time.Time
}

func (s *stale) List(ctx context.Context, prefix string) (hosts.Listing, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.at[prefix]) < 20*time.Millisecond {
		return s.last[prefix], nil
	}
	l, err := s.Engine.List(ctx, prefix)
	s.last[prefix], s.at[prefix] = l, time.Now()
	return l, err
}

// careless is an engine that puts what is to be put whether its conditions hold or not.
type careless struct{ hosts.Engine }

func (c careless) Commit(ctx context.Context, t hosts.Txn) (hosts.Result, error) {
	t.If = nil
	return c.Engine.Commit(ctx, t)
}

// TestCheckerNotices: the checker finds nothing in the history of an engine in memory, and
// something in that of one that reads what is old, or that makes what is there.
func TestCheckerNotices(t *testing.T) {
	for name, row := range map[string]struct {
		wrap   func(e hosts.Engine) hosts.Engine
		broken bool
	}{
		"sound": {func(e hosts.Engine) hosts.Engine { return e }, false},
		"stale reads": {func(e hosts.Engine) hosts.Engine {
			return &stale{Engine: e, last: make(map[string]hosts.Listing), at: make(map[string]time.Time)}
		}, true},
		"no conditions": {func(e hosts.Engine) hosts.Engine { return careless{e} }, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := hoststest.NewMemory()
			h := newHistory()
			ctx, cancel := context.WithCancel(t.Context())
			var clients sync.WaitGroup
			for i, host := range []string{"a", "b", "c"} {
				e, err := m.Open(host)
				if err != nil {
					t.Fatal(err)
				}
				h.start(t, ctx, &clients, row.wrap(e), host, i)
			}
			for enough := false; !enough; pause(ctx, 20*time.Millisecond) {
				h.mu.Lock()
				enough = h.done["read"] > 300 && h.done["write"] > 300 && h.done["register"] > 30
				h.mu.Unlock()
			}
			cancel()
			clients.Wait()
			wrong := h.check()
			if row.broken != (len(wrong) != 0) {
				t.Errorf("found %q in %v", wrong, h.done)
			}
		})
	}
}

// start has a host's clients work with an engine until ctx ends.
func (h *history) start(t *testing.T, ctx context.Context, clients *sync.WaitGroup, e hosts.Engine, host string, i int) {
	t.Helper()
	n, err := hosts.NewNames(e, hosts.NamesConfig{Cluster: "check", Host: host, Lease: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for c := range 2 {
		clients.Go(func() { h.registers(ctx, e, 10*i+c) })
	}
	clients.Go(func() { h.names(ctx, n, 10*i+5) })
	t.Cleanup(func() {
		over, cancel := context.WithCancel(context.Background())
		cancel()
		_ = n.Close(over)
		_ = e.Close()
	})
}
