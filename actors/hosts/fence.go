package hosts

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/asynkron/protoactor-go/actor"
)

// ErrStale says that a fence is lower than one that was seen before: who sent it has lost the name,
// whether it knows or not.
var ErrStale = errors.New("stale fence")

// A Fence is the number of one holding of a name: each holder's is higher than that of the one
// before, in the whole cluster. A holder that was frozen can act for a moment after it thaws, while
// another holds the name; who must not suffer from that compares fences, as Guard does. A database
// does by a column: UPDATE … SET …, fence = ? WHERE id = ? AND fence <= ?.
type Fence struct {
	Name   string
	Number uint64 // from 1; 0 in the zero Fence, which is no holder's
}

// fenceHeader is the header of a message in which Fence.String is sent, so that a Guard in the
// receiver can check it.
const fenceHeader = "coppice-fence"

// FenceIn returns the fence in the header of the message that c handles: that of the singleton from
// whose process it came. false if it has none.
func FenceIn(c actor.Context) (Fence, bool) {
	h := c.MessageHeader()
	if h == nil || h.Length() == 0 {
		return Fence{}, false
	}
	f, err := ParseFence(h.Get(fenceHeader))
	return f, err == nil
}

// String returns the number, a space and the name; ParseFence reads it.
func (f Fence) String() string { return strconv.FormatUint(f.Number, 10) + " " + f.Name }

// ParseFence reads what Fence.String returns.
func ParseFence(s string) (Fence, error) {
	number, name, ok := strings.Cut(s, " ")
	n, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil || n == 0 || CheckName(name) != nil {
		return Fence{}, fmt.Errorf("hosts: no fence: %.300q", s)
	}
	return Fence{Name: name, Number: n}, nil
}

type fenceKey struct{}

// WithFence returns a context from which FenceOf returns f.
func WithFence(ctx context.Context, f Fence) context.Context {
	return context.WithValue(ctx, fenceKey{}, f)
}

// FenceOf returns the fence under which the function that was given ctx, or one from it, runs;
// false where there is none.
func FenceOf(ctx context.Context) (Fence, bool) {
	f, ok := ctx.Value(fenceKey{}).(Fence)
	return f, ok
}

// A Guard stands before what only the newest holder of a name may change, and remembers the highest
// fence of each name that it has let pass. It knows what it was asked only: it belongs into the one
// process that owns the data, and starts with what that has stored (Check with the stored fence).
// It keeps one number a name for as long as it lives. The zero Guard is ready. Its methods may be
// called concurrently.
type Guard struct {
	mu      sync.Mutex
	highest map[string]uint64
}

// Check returns nil if no higher fence of f's name has passed, else ErrStale. The zero Fence is
// stale. A caller that changes data after Check, not in one step with it, holds off other callers
// meanwhile: by a lock of its own, or as an actor, which handles one message after the other.
func (g *Guard) Check(f Fence) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if highest := g.highest[f.Name]; f.Number == 0 || f.Number < highest {
		return fmt.Errorf("hosts: %q: %d, and %d was there: %w", f.Name, f.Number, highest, ErrStale)
	}
	if g.highest == nil {
		g.highest = make(map[string]uint64)
	}
	g.highest[f.Name] = f.Number
	return nil
}

// CheckMessage is Check of the fence in the header of the message that c handles, which must be one
// of name: a message without it, or of another name, is stale.
func (g *Guard) CheckMessage(c actor.Context, name string) error {
	f, _ := FenceIn(c)
	if f.Name != name {
		return fmt.Errorf("hosts: %q: a message without a fence of it: %w", name, ErrStale)
	}
	return g.Check(f)
}
