package hosts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
)

// ErrNoEngine says that Config has no Engine: the hosts agree on nothing.
var ErrNoEngine = errors.New("no engine in the configuration of the hosts")

// Lookup returns the PID of a name of the cluster, which RegisterActor or a singleton holds; see
// actors.LookupCluster.
func Lookup(name string) *actor.PID { return actors.LookupCluster(name) }

// session returns the configuration of a session of this host.
func (c *Config) session(boot string) *NamesConfig {
	return &NamesConfig{Cluster: c.Cluster, Host: c.Name, Boot: boot, Lease: c.Lease, Margin: c.Margin}
}

// sessionsPrefix is before the addresses of processes with a session.
const sessionsPrefix = "sessions/"

// joined are the sessions of the processes, by their systems: more than one where workers are
// goroutines.
var joined = struct {
	sync.Mutex
	names map[*actors.System]*Names
}{names: make(map[*actors.System]*Names)}

// Names returns the session of a process with the engine, by its actor system. The first call
// begins it and returns at once; later ones return the same. What a process holds is free again
// soon after its end: its gateway sees to that, and the lease.
func (c *Config) Names(s *actors.System) (*Names, error) {
	if c.Engine == nil {
		return nil, fmt.Errorf("hosts: %w", ErrNoEngine)
	}
	joined.Lock()
	defer joined.Unlock()
	if n := joined.names[s]; n != nil {
		return n, nil
	}
	cfg := c.session(actors.Boot(s.Address()))
	cfg.key = sessionsPrefix + s.Address()
	n, err := c.open(s, cfg, s.Address())
	if err != nil {
		return nil, err
	}
	joined.names[s] = n
	return n, nil
}

// lockPath returns the file that a session of this host has locked.
func (c *Config) lockPath(session string) string { return filepath.Join(c.Dir, "sessions", session) }

// open begins a session. Its connection to the engine, and its lock, live as long as the process.
func (c *Config) open(s *actors.System, cfg *NamesConfig, session string) (*Names, error) {
	var lock *os.File
	if c.Dir != "" {
		path := c.lockPath(session)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if err == nil {
			lock, err = lockFile(path) // before there can be an entry
		}
		if err != nil {
			return nil, fmt.Errorf("hosts: config: Dir: %w", err)
		}
	}
	e, err := c.Engine.Open(c.Name)
	if err != nil {
		_ = lock.Close() // it may be nil
		return nil, fmt.Errorf("hosts: %w", err)
	}
	n, err := newNames(e, *cfg, clock{now: boottime, alarm: newBootAlarm})
	if err != nil {
		_ = lock.Close()
		return nil, errors.Join(err, e.Close())
	}
	n.system, n.lock = s, lock
	return n, nil
}

// A registrar is what a gateway does with the engine: it has the host's entry, tells the master who
// holds the names of the cluster, and ends the leases of processes of this host that have died.
type registrar struct {
	cfg     *Config
	log     *slog.Logger
	system  *actors.System
	carrier *actors.Carrier
	ctx     context.Context
	guards  sync.WaitGroup

	mu    sync.Mutex // held during messages to the master, which keeps them in order
	names *Names     // nil until the engine is open
	known bool       // the master has all
}

// run keeps it until ctx ends.
func (d *registrar) run(ctx context.Context) {
	d.ctx = ctx
	defer d.guards.Wait()
	cfg := d.cfg.session(actors.Boot(d.system.Address()))
	cfg.owner = "gateways of " + cfg.Boot // a later one takes the entry over; it owns nothing
	cfg.shown = d.shown
	var names *Names
	for names == nil {
		var err error
		d.mu.Lock()
		if names, err = d.cfg.open(d.system, cfg, cfg.Boot); err == nil {
			d.names = names
		}
		d.mu.Unlock()
		if err == nil {
			break
		}
		d.log.Error("hosts: no way to the engine", "err", err)
		select {
		case <-time.After(socketPause):
		case <-ctx.Done():
			return
		}
	}
	defer func() {
		over, cancel := context.WithTimeout(context.Background(), goodbye)
		defer cancel()
		_ = names.Close(over)
		_ = names.engine.Close()
		_ = names.lock.Close()
	}()
	var said string
	// What the gateway before has told counts as long as its session may have lasted.
	former := time.NewTimer(names.cfg.Lease)
	defer former.Stop()
	for {
		names.mu.Lock()
		changed := names.changed
		names.mu.Unlock()
		view, listed := names.view.next()
		s := names.Session()
		known := s.Live && listed
		d.mu.Lock()
		if known != d.known {
			d.known = known
			d.tellLocked()
		}
		d.mu.Unlock()
		switch text := fmt.Sprint(s.Err); {
		case s.Live && said != "live":
			said = "live"
			d.log.Info("hosts: the session with the engine is live")
		case !s.Live && s.Err != nil && said != text:
			said = text
			d.log.Warn("hosts: no session with the engine: names of the cluster are unavailable", "err", s.Err)
		}
		if listed {
			view = nil // shown passes on what comes
		}
		select {
		case <-changed:
		case <-view:
		case <-former.C:
			d.mu.Lock()
			if !d.known {
				d.tellLocked()
			}
			d.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// goodbye bounds the wait for the end of a gateway's session.
const goodbye = time.Second

// begin tells a master all: it is another one, or has forgotten it.
func (d *registrar) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known {
		d.tellLocked()
	}
}

// tellLocked tells the master all that is known, or that nothing is.
func (d *registrar) tellLocked() {
	if !d.known {
		d.carrier.Holders(nil)
		return
	}
	all := make(map[string]*actor.PID)
	d.names.view.mu.Lock()
	for key, e := range d.names.view.entries {
		if name, ok := strings.CutPrefix(key, d.names.root+"names/"); ok {
			if pid := pidIn(e); pid != nil {
				all[name] = pid
			}
		}
	}
	d.names.view.mu.Unlock()
	d.carrier.Holders(all)
}

func pidIn(e Entry) *actor.PID {
	var r holderValue
	if json.Unmarshal(e.Value, &r) != nil {
		return nil
	}
	return r.pid()
}

// shown takes what the watch shows, in order.
func (d *registrar) shown(gone, made []Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known {
		for _, e := range gone {
			if name, ok := strings.CutPrefix(e.Key, d.names.root+"names/"); ok {
				d.carrier.Holder(name, nil)
			}
		}
	}
	for _, e := range made {
		if name, ok := strings.CutPrefix(e.Key, d.names.root+"names/"); ok && d.known {
			d.carrier.Holder(name, pidIn(e))
		}
		address, ok := strings.CutPrefix(e.Key, d.names.root+sessionsPrefix)
		if ok && actors.Boot(address) == actors.Boot(d.system.Address()) {
			d.guards.Go(func() { d.guard(address, e) }) // until the process, or ctx, has ended
		} else if ok {
			d.former(address, e)
		} else if e.Key == d.names.hostKey() {
			d.former("", e)
		}
	}
}

// former sees to an entry of a session that is not of this boot: of a former one of this host, if
// there is the file that it has locked. Without an address it is that of the host.
func (d *registrar) former(address string, e Entry) {
	var r hostValue
	if json.Unmarshal(e.Value, &r) != nil || r.Host != d.cfg.Name || r.Boot == actors.Boot(d.system.Address()) || d.cfg.Dir == "" {
		return
	}
	session := address
	if session == "" {
		session = r.Boot
	}
	path := d.cfg.lockPath(session)
	if _, err := os.Stat(path); err != nil || filepath.Base(session) != session {
		return // another machine's, which has the same name
	}
	d.guards.Go(func() { // until it has died, or its lease or ctx has ended
		for d.ctx.Err() == nil && d.there(e) {
			if abandoned(path) {
				d.revoke(e)
				_ = os.Remove(path)
				return
			}
			d.pause()
		}
	})
}

// there reports whether an entry is there still.
func (d *registrar) there(e Entry) bool {
	now, ok := d.names.view.get(e.Key)
	return ok && now.Created == e.Created
}

func (d *registrar) pause() {
	select {
	case <-time.After(socketPause / 10):
	case <-d.ctx.Done():
	}
}

// revoke ends the lease of an entry whose process has died.
func (d *registrar) revoke(e Entry) {
	for d.ctx.Err() == nil && d.there(e) {
		ctx, cancel := context.WithTimeout(d.ctx, time.Second)
		err := d.names.engine.Revoke(ctx, e.Lease)
		cancel()
		if err == nil {
			return
		}
		d.pause()
	}
}

// guard ends the lease of a process of this host when the process has ended.
func (d *registrar) guard(address string, e Entry) {
	for d.ctx.Err() == nil {
		m := d.system.Monitor(actors.ProcessPID(address))
		select {
		case down := <-m.C:
			if err := down.Reason.Err(); errors.Is(err, actors.ErrLane) || errors.Is(err, actors.ErrUnreachable) {
				d.pause() // it may live
				continue
			}
		case <-d.ctx.Done():
			m.Cancel()
			return
		}
		d.revoke(e)
		if d.cfg.Dir != "" {
			_ = os.Remove(d.cfg.lockPath(address))
		}
		return
	}
}
