package etcd_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
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
	log   func(record) // of a program that may be killed at any time; nil: none
	epoch func() int64 // is in the keys, so that each of them has a short history; nil: none
	mu    sync.Mutex
	ops   map[string][]porcupine.Operation // by what is checked alone
	open  map[int]operation                // that have begun
	next  int
	wrong []string
	held  map[string][]span // holdings by name
	freed map[int]bool      // holdings whose release has begun
	done  map[string]int    // operations by how they ended
}

// operation is one that has begun.
type operation struct {
	Key    string
	Client int
	In     input
	Call   int64
}

// span is a holding: when its registration was asked for and answered.
type span struct {
	call, ret int64
	fence     uint64
	value     int
}

// input is an operation on one register or one name.
type input struct {
	Kind    string // read, write; register, refused, release
	Value   int    // written; the holding
	Unknown bool   // it may have been done, at any time since, or never
}

func newHistory() *history {
	return &history{
		ops: make(map[string][]porcupine.Operation), open: make(map[int]operation), held: make(map[string][]span),
		freed: make(map[int]bool), done: make(map[string]int),
	}
}

// monotonic is a time. That of a program is of the clock that all processes of the machine share.
var monotonic = func() int64 { return int64(time.Since(testBegun)) }

var testBegun = time.Now()

func (h *history) now() int64 { return monotonic() }

// record is a line of what a program tells of itself.
type record struct {
	Kind   string
	ID     int        `json:",omitempty"`
	Op     *operation `json:",omitempty"`
	Out    int        `json:",omitempty"`
	Fence  uint64     `json:",omitempty"`
	At     int64      `json:",omitempty"`
	Text   string     `json:",omitempty"`
	Number int        `json:",omitempty"`
}

// begin enters an operation that begins.
func (h *history) begin(key string, client int, in input) (id int, call int64) {
	h.mu.Lock()
	h.next++
	id = h.next
	h.mu.Unlock()
	o := operation{key, client, in, h.now()}
	if h.log != nil {
		h.log(record{Kind: "begin", ID: id, Op: &o})
	}
	h.begun(id, o)
	return id, o.Call
}

func (h *history) begun(id int, o operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open[id] = o
	if o.In.Kind == "release" {
		h.freed[o.In.Value] = true
	}
}

// end enters how an operation has ended, which may have begun at another time than begin has said.
func (h *history) end(id int, in input, out int, call int64, fence uint64) (ret int64) {
	ret = h.now()
	if h.log != nil {
		h.log(record{Kind: "end", ID: id, Op: &operation{In: in, Call: call}, Out: out, Fence: fence, At: ret})
	}
	h.ended(id, in, out, call, ret, fence)
	return ret
}

func (h *history) ended(id int, in input, out int, call, ret int64, fence uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o := h.open[id]
	delete(h.open, id)
	h.add(o, in, out, call, ret)
	switch {
	case in.Kind != "register":
	case in.Unknown: // it may have been held, and be let go of since
		h.add(o, input{"release", in.Value, true}, 0, call, ret)
	default:
		h.held[o.Key] = append(h.held[o.Key], span{call, ret, fence, in.Value})
	}
}

func (h *history) add(o operation, in input, out int, call, ret int64) {
	h.done[in.Kind]++
	client := o.Client
	if in.Unknown {
		h.done[in.Kind+" in doubt"]++
		if in.Kind == "read" {
			return
		}
		ret = math.MaxInt64
		h.next++
		client = -h.next // it goes on while its client does something else
	}
	h.ops[o.Key] = append(h.ops[o.Key], porcupine.Operation{ClientId: client, Input: in, Output: out, Call: call, Return: ret})
}

// check returns what is not linearizable.
func (h *history) check() []string {
	for id, o := range maps.Clone(h.open) { // of those who were killed
		o.In.Unknown = true
		for _, held := range h.held[o.Key] { // it may have been lost before it was given back
			if o.In.Kind == "release" && held.value == o.In.Value {
				o.Call = held.ret
			}
		}
		h.ended(id, o.In, 0, o.Call, 0, 0)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, held := range h.held {
		for _, s := range held {
			if !h.freed[s.value] {
				h.add(operation{Key: name}, input{"release", s.value, true}, 0, s.ret, 0)
			}
		}
	}
	model := porcupine.Model{Init: func() any { return 0 }, Step: func(state, in, out any) (bool, any) {
		i := in.(input)
		switch i.Kind {
		case "write":
			return true, i.Value
		case "read":
			return out.(int) == state.(int), state
		case "register":
			if state.(int) == 0 {
				return true, i.Value
			}
			return i.Unknown, state
		case "refused":
			return state.(int) != 0, state
		default: // release
			if state.(int) == i.Value {
				return true, 0
			}
			return i.Unknown, state
		}
	}}
	wrong := h.wrong
	for key, ops := range h.ops {
		if r := porcupine.CheckOperationsTimeout(model, ops, time.Minute); r != porcupine.Ok {
			var all strings.Builder
			slices.SortFunc(ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
			for _, o := range ops[:min(len(ops), 200)] {
				fmt.Fprintf(&all, "\n\t%d to %d: client %d: %+v %v", o.Call, o.Return, o.ClientId, o.Input, o.Output)
			}
			wrong = append(wrong, fmt.Sprintf("%s: %d operations: %v%s", key, len(ops), r, &all))
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

// key is that of one of two or four things.
func (h *history) key(kind string, n int) string {
	if h.epoch == nil {
		return fmt.Sprint(kind, n)
	}
	return fmt.Sprint(kind, h.epoch(), "-", n)
}

// registers reads and writes four registers until ctx ends.
func (h *history) registers(ctx context.Context, e hosts.Engine, client int) {
	r := rand.New(rand.NewPCG(uint64(client), uint64(h.now())))
	for ctx.Err() == nil {
		key := h.key("register/", r.IntN(4))
		in := input{Kind: "read"}
		if r.IntN(2) == 0 {
			in = input{Kind: "write", Value: r.Int()}
		}
		out := 0
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		id, call := h.begin(key, client, in)
		var err error
		if in.Kind == "write" {
			_, err = e.Commit(limit, hosts.Txn{Then: []hosts.Op{{Key: key, Value: fmt.Append(nil, in.Value)}}})
		} else {
			out, err = read(limit, e, key, r.IntN(2) == 0)
		}
		cancel()
		in.Unknown = err != nil
		h.end(id, in, out, call, 0)
		pause(ctx, time.Duration(r.IntN(10))*h.slow())
	}
}

// slow is the unit of the pauses between operations.
func (h *history) slow() time.Duration {
	if h.epoch != nil {
		return 5 * time.Millisecond
	}
	return time.Millisecond
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
	r := rand.New(rand.NewPCG(uint64(client), uint64(h.now())))
	last := make(map[string]uint64)
	for ctx.Err() == nil {
		name := h.key("name-", r.IntN(2))
		if holder, err := n.Lookup(name); err == nil {
			if holder.Fence.Number < last[name] {
				h.fail(fmt.Sprintf("%s: lookup of client %d tells %d after %d", name, client, holder.Fence.Number, last[name]))
			}
			last[name] = holder.Fence.Number
		}
		in := input{Kind: "register", Value: r.Int()}
		id, call := h.begin(name, client, in)
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		holding, err := n.Register(limit, name, nil)
		cancel()
		switch {
		case errors.Is(err, actors.ErrNameTaken) && !errors.Is(err, hosts.ErrUnavailable):
			h.end(id, input{Kind: "refused"}, 0, call, 0)
		case err != nil:
			in.Unknown = true
			h.end(id, in, 0, call, 0)
		default:
			registered := h.end(id, in, 0, call, holding.Fence().Number)
			pause(holding.Context(), time.Duration(r.IntN(60))*h.slow())
			in = input{Kind: "release", Value: in.Value}
			id, call = h.begin(name, client, in)
			limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			in.Unknown = holding.Release(limit) != nil
			cancel()
			if in.Unknown || !errors.Is(context.Cause(holding.Context()), hosts.ErrReleased) {
				in.Unknown, call = true, registered // its lease ends, or has ended
			}
			h.end(id, in, 0, call, 0)
		}
		pause(ctx, time.Duration(r.IntN(20))*h.slow())
	}
}

func (h *history) fail(what string) {
	if h.log != nil {
		h.log(record{Kind: "wrong", Text: what})
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wrong = append(h.wrong, what)
}

// count is how many operations have ended well, with a register for each ten reads.
func (h *history) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return min(h.done["read"]-h.done["read in doubt"], 10*(h.done["register"]-h.done["register in doubt"]))
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
