package hosts

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coppice-go/coppice/actors"
)

// What an Engine's calls return, wrapped. Any other error is one of the caller's or of the engine's
// set-up, and does not pass by itself.
var (
	// ErrUnavailable says that the engine did not answer in time, or has no majority. A change that
	// was asked for is in doubt: it may have been done, or may be done yet.
	ErrUnavailable = actors.ErrUnavailable
	// ErrNoLease says that a lease has ended or never was. Nothing was done.
	ErrNoLease = errors.New("no such lease")
	// ErrCompacted says that changes after a revision are no longer known one by one.
	ErrCompacted = errors.New("revision compacted")
)

// An Engine is what the hosts of a cluster agree by: entries under keys, leases at whose end
// entries go, and the order of all changes. hosts/etcd has one on etcd, hoststest one in memory,
// and the suite that another has to pass (hoststest.TestEngine).
//
// It must hold:
//
//   - Commit and List are linearizable: each takes effect at one instant between its call and its
//     return, for all who are connected to the engine anywhere. One that returns ErrUnavailable takes
//     effect at some instant after its call, or never.
//   - Each Commit that changes something has a revision of its own, higher than those before.
//   - A lease that was granted, or renewed with success, by a call that began at t ends no sooner
//     than
//     t + its time by a clock that runs at about the rate of the caller's. Its entries go with it, and
//     soon after it: at most in another time of the lease after the engine has a leader.
//   - A watch tells each change once, and in the order of revisions; the changes of one revision
//     together.
//
// Methods may be called concurrently, and end with ctx, with its error or ErrUnavailable. The end
// of ctx ends the wait: whether a change is made stays in doubt. Keys are UTF-8 of at most 1024
// bytes, values have at most 64 KiB. What is returned is owned by the caller.
type Engine interface {
	// Commit does all of t.Then if all of t.If holds, and reads t.Read in the same instant.
	// ErrNoLease: an operation names a lease that has ended; nothing was done.
	Commit(ctx context.Context, t Txn) (Result, error)
	// List returns the entries whose keys begin with prefix, in the order of their keys.
	List(ctx context.Context, prefix string) (Listing, error)
	// Watch tells the changes after revision after to keys that begin with prefix, until ctx ends,
	// the loop is left, or an error comes, which is the last: ErrCompacted (List anew, and watch
	// from there), ErrUnavailable (watch on from the last revision that came), the error of ctx.
	Watch(ctx context.Context, prefix string, after uint64) iter.Seq2[Changes, error]
	// Grant returns a new lease of at least ttl. An engine may make it longer: etcd counts seconds.
	Grant(ctx context.Context, ttl time.Duration) (Lease, error)
	// Renew has the lease last for its time from now on, or returns ErrNoLease.
	Renew(ctx context.Context, l Lease) error
	// Revoke ends the lease now, and deletes its entries. A lease that has ended is no error.
	Revoke(ctx context.Context, l Lease) error
	// Close ends the connection to the engine, and the calls and watches under way. Leases stay.
	Close() error
}

// An EngineSpec says how the processes of a host come to the engine of the cluster. It is a value,
// in Config.Engine.
type EngineSpec interface {
	// Validate returns what is wrong with it on the host of that name, joined.
	Validate(host string) error
	// Open connects this process, which may be any of the host. It does not wait for the engine,
	// which may start later. The result is the caller's to close.
	Open(host string) (Engine, error)
}

// A MemberSpec is an EngineSpec of an engine that runs on the hosts themselves, whose members reach
// each other through the trunks.
type MemberSpec interface {
	EngineSpec
	// Member returns what runs the part of a host until ctx ends; nil if it has none. It runs in a
	// process of its own, whose working directory and environment are its, and is called again when
	// it returns.
	Member(host string) func(ctx context.Context) error
	// Joints returns what the gateway of a host carries for the engine.
	Joints(host string) ([]Tunnel, []TunnelService)
}

// A Lease names a lease of an engine. 0 is none.
type Lease int64

// A Txn is what Commit does. No key stands twice in Then.
type Txn struct {
	If   []Cond   // all of them; empty: always
	Then []Op     // in one revision; empty: nothing is changed
	Read []string // keys whose entries the Result has: as they are after Then, or as they are if If does not hold
}

// A Cond holds if the entry of Key was made by revision Created: by the Commit that put it where it
// was not. 0: there is none.
type Cond struct {
	Key     string
	Created uint64
}

// An Op puts an entry, over the one that is there, or deletes it. To delete what is not there is no
// error.
type Op struct {
	Key    string
	Value  []byte
	Lease  Lease // the entry goes with it; 0: it stays
	Delete bool
}

// A Result is what a Commit has come to.
type Result struct {
	Done     bool    // If held
	Revision uint64  // of the change, if one was made; else that of the instant
	Entries  []Entry // of Txn.Read, those that are there, in its order
}

// An Entry is what stands under a key.
type Entry struct {
	Key      string
	Value    []byte
	Lease    Lease
	Created  uint64 // the revision that made it
	Modified uint64 // the last that put it
}

// A Listing is the entries of a prefix at one revision.
type Listing struct {
	Revision uint64
	Entries  []Entry
}

// Changes is what one revision has changed.
type Changes struct {
	Revision uint64
	Changes  []Change
}

// A Change is of one key. Of a deletion Entry is what was there before, as far as the engine knows:
// at least its key; else what is there now.
type Change struct {
	Entry   Entry
	Deleted bool
}

// MaxName is the longest name of a cluster, in bytes, and of a host.
const MaxName = 255

// CheckName returns nil if name can be a name of a cluster, else actors.ErrName: 1 to MaxName bytes
// of UTF-8 that can be printed, without spaces, and not with a slash at an end.
func CheckName(name string) error {
	odd := func(r rune) bool { return !unicode.IsPrint(r) || unicode.IsSpace(r) }
	if name == "" || len(name) > MaxName || !utf8.ValidString(name) || strings.ContainsFunc(name, odd) ||
		name[0] == '/' || name[len(name)-1] == '/' {
		return fmt.Errorf("hosts: %.300q: %w", name, actors.ErrName)
	}
	return nil
}
