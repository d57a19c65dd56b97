package coppice

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/coppice-go/coppice/runtime/internal/notify"
	"github.com/coppice-go/coppice/supervisor"
)

// tellTimeout bounds how long the end of the tree waits for a service manager that does
// not read.
const tellTimeout = 100 * time.Millisecond

// serviceManager tells systemd of the tree, by sd_notify(3). The nil one is where
// nobody wants to hear.
type serviceManager struct {
	rt     *Runtime
	teller *notify.Teller
	stop   context.CancelFunc
	live   sync.WaitGroup // what stop ends

	mu     sync.Mutex
	status string // of the tree, told last
	failed bool   // the last reload's error was told in its place
}

// tellSystemd says that the tree is up, if systemd wants to know, and goes on
// telling. The function that it returns says that the tree is about to end.
func (rt *Runtime) tellSystemd() (ending func()) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return func() {}
	}
	m := &serviceManager{rt: rt}
	m.teller = notify.NewTeller(os.Getenv("NOTIFY_SOCKET"), func(err error) { rt.log.Warn("systemd does not hear", "err", err) })
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		rt.log.Warn("systemd's watchdog", "err", err)
	}
	var ctx context.Context
	ctx, m.stop = context.WithCancel(context.Background())
	m.tell(daemon.SdNotifyReady)
	m.live.Go(func() { m.keepStatus(ctx) })
	if watchdog > 0 {
		m.live.Go(func() { m.signsOfLife(ctx, watchdog/2) }) // half of it: sd_watchdog_enabled(3)
	}
	rt.manager.Store(m)
	return m.ending
}

// keepStatus tells the status whenever it changes.
func (m *serviceManager) keepStatus(ctx context.Context) {
	sub := m.rt.Subscribe(1) // what the newest event left behind is the status
	defer sub.Close()
	for range sub.Events(ctx) {
		m.tell()
	}
}

// signsOfLife tells at intervals that the tree is supervised. A proof that does not get
// through is not followed by others, which would come when they are not true any more.
func (m *serviceManager) signsOfLife(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if m.turns(ctx) && m.teller.Idle() {
			m.tell(daemon.SdNotifyWatchdog)
		}
	}
}

// turns reports whether all that decides takes its turns: each supervisor of the tree,
// each pool, and the goroutine that heeds the signals. It waits for a turn of each.
func (m *serviceManager) turns(ctx context.Context) bool {
	turned := make(chan struct{})
	select {
	case heedTurns <- turned:
		<-turned
	case <-ctx.Done():
		return false
	}
	return m.rt.tree.Turn(ctx) == nil
}

// reloading says that a reload begins. The function that it returns says that it
// has ended, well or not: the tree serves. The status is an error's text until the
// tree's changes or a reload succeeds.
func (m *serviceManager) reloading() (reloaded func(error)) {
	if m == nil {
		return func(error) {}
	}
	m.tell(daemon.SdNotifyReloading, strings.TrimSpace(daemon.SdNotifyMonotonicUsec()))
	return func(err error) {
		if err == nil {
			m.tell(daemon.SdNotifyReady)
			return
		}
		reason, _, _ := strings.Cut(err.Error(), "\n") // one line is one variable of sd_notify(3)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.failed = true
		m.teller.Tell(daemon.SdNotifyReady + "\nSTATUS=" + supervisor.Cut(reason))
	}
}

// ending says that the tree is about to end, and how long that takes at most.
func (m *serviceManager) ending() {
	m.stop()
	m.live.Wait()
	m.tell(daemon.SdNotifyStopping, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", m.rt.cfg.Shutdown.Microseconds()))
	m.teller.Flush(tellTimeout)
}

// tell sends states, and the status where it has changed. It does not wait.
func (m *serviceManager) tell(states ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	again := m.failed && slices.Contains(states, daemon.SdNotifyReady)
	if status := m.rt.Snapshot().status(); status != m.status || again {
		m.status, m.failed = status, false
		states = append(states, "STATUS="+status)
	}
	if len(states) == 0 {
		return
	}
	m.teller.Tell(strings.Join(states, "\n"))
}

// status is the tree in a few words: "web 3 of 4 ready".
func (t Tree) status() string {
	var parts []string
	t.Walk(func(n Tree) {
		if n.Role != "pool" {
			return
		}
		ready, slots := 0, 0
		for _, w := range n.Children {
			if w.Role == roleSpare || w.Role == roleDraining || w.Role == roleCandidate {
				continue
			}
			slots++
			if w.State == supervisor.Running.String() {
				ready++
			}
		}
		parts = append(parts, fmt.Sprintf("%s %d of %d ready", n.Name, ready, slots))
	})
	if len(parts) == 0 {
		return t.State
	}
	return strings.Join(parts, ", ")
}
