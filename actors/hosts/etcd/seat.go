package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.uber.org/zap"

	"github.com/coppice-go/coppice/actors/hosts/seats"
)

const (
	stateDir = "member" // of etcd

	seatPause   = 500 * time.Millisecond // between two looks at what is asked of a seat
	askWait     = 2 * time.Second        // for another seat's answer
	refusedWait = 30 * time.Second       // before the same is said again
)

func (x Embedded) writeSeat(s seats.Seat) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	path := x.path(seats.File)
	return errors.Join(os.WriteFile(path+".new", append(b, '\n'), 0o600), os.Rename(path+".new", path))
}

// A census is what another seat says of the engine's members.
type census struct {
	engine  string
	members []*membership.Member
}

// ours is the member of a host's seat; nil: there is none.
func (r census) ours(host string) *membership.Member {
	i := slices.IndexFunc(r.members, func(m *membership.Member) bool { return slices.Contains(m.PeerURLs, seats.PeerURL(host)) })
	if i < 0 {
		return nil
	}
	return r.members[i]
}

// censuses asks the other seats, and returns the answers by their hosts.
func (x Embedded) censuses(ctx context.Context, host string) map[string]census {
	type answer struct {
		host   string
		census *census
	}
	answers := make(chan answer, len(x.Seats))
	for _, other := range x.Seats {
		go func() { // ends within askWait
			r, err := x.membersOf(ctx, other)
			if other == host || err != nil {
				r = nil
			}
			answers <- answer{other, r}
		}()
	}
	all := make(map[string]census)
	for range x.Seats {
		if a := <-answers; a.census != nil {
			all[a.host] = *a.census
		}
	}
	return all
}

func (x Embedded) membersOf(ctx context.Context, host string) (*census, error) {
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", x.peerSocket(host))
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/members", nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	r := &census{engine: resp.Header.Get("X-Etcd-Cluster-ID")}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&r.members); err != nil {
		return nil, err
	}
	if r.engine == "" || len(r.members) == 0 {
		return nil, errors.New("no members")
	}
	return r, nil
}

// join is how a member starts: alone or with all seats as the first ones, or as a later one of
// those that are there.
type join struct {
	existing bool
	initial  string // etcd's initial-cluster
}

// errAgain says that a member has ended to be started anew.
var errAgain = errors.New("it is started anew")

// invited reports whether another seat has let in a member of this host that is not the one of its
// directory, and has not started.
func invited(host string, mine seats.Seat, all map[string]census) (census, bool) {
	for _, r := range all {
		if m := r.ours(host); m != nil && m.Name == "" && m.ID.String() != mine.Member {
			return r, true
		}
	}
	return census{}, false
}

// prepare looks at the directory, and at what the other seats say, before a start. An error says
// why this host cannot have its seat, and what to do.
func (x Embedded) prepare(ctx context.Context, host string) (*join, error) {
	mine, err := seats.Read(x.path(""))
	if err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("hosts/etcd: Embedded.Dir: %w", err)
	}
	if mine.Host != "" && mine.Host != host {
		return nil, fmt.Errorf("hosts/etcd: Embedded.Dir: %s has the seat of host %q, not of %q: each host has a directory of its own", x.Dir, mine.Host, host)
	}
	if err := x.recover(host); err != nil {
		return nil, err
	}
	all := x.censuses(ctx, host)
	_, err = os.Stat(x.path(stateDir))
	there := err == nil
	if r, ok := invited(host, mine, all); ok {
		if there {
			if err := x.moveAway(); err != nil {
				return nil, err
			}
		}
		return &join{existing: true, initial: r.initial(host)}, nil
	}
	first := &join{initial: x.initial()}
	if there && mine.Engine == "" { // it was ended before it could write whose it is
		return first, nil
	}
	for other, r := range all {
		m := r.ours(host)
		switch {
		case there && r.engine != mine.Engine && !sameEngine(mine, all):
			return nil, fmt.Errorf("hosts/etcd: Embedded.Dir: %s is of engine %s, and the seat of host %q of engine %s: it was made anew, or one directory is another cluster's; "+
				"`coppicectl hosts seat replace %s` has this seat join that engine", x.Dir, mine.Engine, other, r.engine, host)
		case there: // etcd itself says the rest
		case m == nil:
			return nil, fmt.Errorf("hosts/etcd: host %q has no member in the engine that the seat of host %q is in: `coppicectl hosts seat replace %s` lets it in", host, other, host)
		case len(m.ClientURLs) > 0:
			return nil, fmt.Errorf("hosts/etcd: Embedded.Dir: %s is empty, and the seat of host %q knows a member of host %q that had one: if it is lost, `coppicectl hosts seat replace %s` lets an empty one in",
				x.Dir, other, host, host)
		}
	}
	return first, nil
}

func sameEngine(mine seats.Seat, all map[string]census) bool {
	for _, r := range all {
		if r.engine == mine.Engine {
			return true
		}
	}
	return false
}

// initial is etcd's initial-cluster of a later member: those that are there, and itself.
func (r census) initial(host string) string {
	list := []string{host + "=" + seats.PeerURL(host)}
	for _, m := range r.members {
		for _, url := range m.PeerURLs {
			if other := seats.Host(url); other != host {
				list = append(list, other+"="+url)
			}
		}
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

// moveAway keeps the state of the directory beside it, for a human.
func (x Embedded) moveAway() error {
	former := x.path(seats.Former)
	if err := errors.Join(os.RemoveAll(former), os.Rename(x.path(stateDir), former)); err != nil {
		return fmt.Errorf("hosts/etcd: Embedded.Dir: %w", err)
	}
	if err := os.Remove(x.path(seats.File)); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("hosts/etcd: Embedded.Dir: %w", err)
	}
	return nil
}

// asked reports whether a recovery is asked for.
func (x Embedded) asked() bool {
	_, err := os.Stat(x.path(seats.RecoverFile))
	return err == nil
}

// above is how far the revisions of a recovered engine begin above the microseconds since 1970. So
// those of one that was recovered before are below them, what is lost of it too, as long as it made
// fewer than a million changes a second. Only if the clock is behind, so that they are not, they
// begin as far above the highest that is left.
const above = 1 << 40

// recover makes the engine anew if that is asked for. It may be ended at any point, and begins
// again where it was.
func (x Embedded) recover(host string) error {
	if !x.asked() {
		return nil
	}
	bad := func(err error) error {
		return fmt.Errorf("hosts/etcd: recover the engine in %s: %w", x.Dir, err)
	}
	made := x.path(seats.Recovering)
	if _, err := os.Stat(made); os.IsNotExist(err) {
		if err := x.restore(host, made); err != nil {
			return bad(err)
		}
	}
	if _, err := os.Stat(filepath.Join(made, stateDir)); err == nil {
		if _, err := os.Stat(x.path(stateDir)); err == nil {
			if err := x.moveAway(); err != nil {
				return bad(err)
			}
		}
		if err := os.Rename(filepath.Join(made, stateDir), x.path(stateDir)); err != nil {
			return bad(err)
		}
	}
	_ = os.Remove(x.path(seats.File))     // of the state before
	_ = os.Remove(x.path(seats.Snapshot)) // if there was one
	if err := errors.Join(os.Remove(x.path(seats.RecoverFile)), os.RemoveAll(made)); err != nil {
		return bad(err)
	}
	return nil
}

// restore makes the state of a single member in a directory, whole or not at all.
func (x Embedded) restore(host, to string) error {
	begun := to + ".new"
	if err := os.RemoveAll(begun); err != nil {
		return err
	}
	from, copied := x.path(seats.Snapshot), false
	if _, err := os.Stat(from); os.IsNotExist(err) {
		from, copied = x.path(filepath.Join(stateDir, "snap", "db")), true
	}
	if _, err := os.Stat(from); os.IsNotExist(err) { // it begins with nothing
		from = x.path(seats.Snapshot + ".none")
		if err := os.RemoveAll(from); err != nil {
			return err
		}
		defer os.Remove(from)
		be := backend.NewDefaultBackend(zap.NewNop(), from)
		tx := be.BatchTx()
		tx.LockOutsideApply()
		for _, b := range schema.AllBuckets {
			tx.UnsafeCreateBucket(b)
		}
		tx.Unlock()
		be.ForceCommit()
		if err := be.Close(); err != nil {
			return err
		}
	}
	s := snapshot.NewV3(zap.NewNop())
	was, err := s.Status(from)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	next := time.Now().UnixMicro() + above
	if next <= was.Revision {
		next = was.Revision + above
	}
	err = s.Restore(snapshot.RestoreConfig{
		SnapshotPath: from, SkipHashCheck: copied || strings.HasSuffix(from, ".none"), OutputDataDir: begun,
		Name: host, PeerURLs: []string{seats.PeerURL(host)}, InitialCluster: host + "=" + seats.PeerURL(host),
		InitialClusterToken: fmt.Sprint("coppice ", next), RevisionBump: uint64(next - was.Revision), MarkCompacted: true,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return os.Rename(begun, to)
}
