package coppice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/coppice-go/coppice/runtime/internal/notify"
	"github.com/coppice-go/coppice/supervisor"
)

// tellTimeout bounds how long the end of the tree waits for a service manager that does not read.
const tellTimeout = 100 * time.Millisecond

// killedTimeout is the most that the end takes after the kill of what still ran.
const killedTimeout = 10 * time.Second

// serviceManager notifies systemd of the state of the program and its tree, by sd_notify(3). A nil
// serviceManager does nothing: the program does not run under systemd.
type serviceManager struct {
	log    *slog.Logger
	teller *notify.Teller
	lost   atomic.Uint64 // messages that could not be sent

	mu     sync.Mutex
	stop   context.CancelFunc // ends the watchdog messages; nil before the tree is up
	tree   managedTree        // set once it is up
	status string             // the tree's status that was sent last
	failed bool               // the last reload's error was sent in its place
	ending bool               // the status is no longer the tree's
}

// managedTree is what a service manager needs of the tree.
type managedTree struct {
	*supervisor.Supervisor
	status   func() string          // in a few words
	shutdown time.Duration          // the most that its end takes
	turns    chan<- chan<- struct{} // of the goroutine that handles the signals, which closes what is sent; nil if there is none
}

// newServiceManager returns nil when systemd did not start this program, or wants no messages.
func newServiceManager(log *slog.Logger) *serviceManager {
	address := os.Getenv("NOTIFY_SOCKET")
	if address == "" {
		return nil
	}
	m := &serviceManager{log: log}
	m.teller = notify.NewTeller(address, func(err error) {
		if n := m.lost.Add(1); isPowerOfTwo(n) {
			m.log.Warn("messages to systemd are lost", "messages", n, "err", err)
		}
	})
	return m
}

// While the tree starts, systemd is asked every extendEvery to wait for extendBy more, in place of
// its TimeoutStartSec. It is asked only while children start, each of which has its StartTimeout.
const (
	extendEvery = 10 * time.Second
	extendBy    = 3 * extendEvery
)

// starting asks systemd again and again to wait for the tree, until the function that it returns is
// called. The watchdog of the image before this one goes on in its trial, which has its own bound:
// so signs of life go along with it.
func (m *serviceManager) starting(every, watchdog time.Duration) (started func()) {
	if m == nil {
		return func() {}
	}
	ask := fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d\nSTATUS=starting", extendBy.Microseconds())
	if watchdog > 0 {
		every, ask = min(every, watchdog/2), ask+"\n"+daemon.SdNotifyWatchdog
		m.teller.Tell(ask)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { // ends with stop, before another message is sent
		defer close(ended)
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				m.teller.Tell(ask)
			}
		}
	}()
	return func() {
		stop()
		<-ended
	}
}

// watchdog returns within which time systemd wants a sign of life; 0 = it wants none.
func (m *serviceManager) watchdog() time.Duration {
	if m == nil {
		return 0
	}
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		m.log.Warn("systemd's watchdog", "err", err)
	}
	return every
}

// up reports that the tree is up, and goes on reporting its state until it has ended. The function
// that it returns reports that the tree is about to end.
func (m *serviceManager) up(tree managedTree) (stopping func()) {
	if m == nil {
		return func() {}
	}
	watchdog := m.watchdog()
	ctx, stop := context.WithCancel(context.Background())
	m.mu.Lock()
	m.tree, m.stop = tree, stop
	m.mu.Unlock()
	m.tell(daemon.SdNotifyReady)
	go m.keepStatus(ctx) // ends with stop, as does the next goroutine
	if watchdog > 0 {
		go m.signsOfLife(ctx, watchdog/2) // half of it: sd_watchdog_enabled(3)
	}
	return m.stopping
}

// keepStatus sends the status whenever it changes.
func (m *serviceManager) keepStatus(ctx context.Context) {
	sub := m.tree.Subscribe(1) // the status is current after the newest event
	defer sub.Close()
	for range sub.Events(ctx) {
		m.tell()
	}
}

// signsOfLife reports at intervals that everything that decides takes its turns: each supervisor of
// the tree, each pool, and the goroutine that handles the signals, if Run does. If a sign does not
// get through, no further sign follows it, because it could arrive when it is no longer true. Other
// messages may hold it up for half of an interval.
func (m *serviceManager) signsOfLife(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if m.signalsTurn(ctx) && m.tree.Turn(ctx) == nil && m.teller.Flush(every/2) {
			m.teller.Tell(daemon.SdNotifyWatchdog)
		}
	}
}

func (m *serviceManager) signalsTurn(ctx context.Context) bool {
	if m.tree.turns == nil {
		return true
	}
	turned := make(chan struct{})
	select {
	case m.tree.turns <- turned:
	case <-ctx.Done():
		return false
	}
	select {
	case <-turned:
		return true
	case <-ctx.Done():
		return false
	}
}

// reloading reports that a reload begins. The function that it returns reports that the reload has
// ended, well or not, and the tree serves. After an error the status is the error's text until the
// tree's status changes or a reload succeeds.
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
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.ending {
			return
		}
		m.failed = true
		m.teller.Tell(daemon.SdNotifyReady + "\n" + statusOf(err))
	}
}

// stopping reports that the tree is about to end, and the most that this takes. Signs of life go on
// until the tree has ended.
func (m *serviceManager) stopping() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ending = true
	m.teller.Tell(fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d", daemon.SdNotifyStopping, m.tree.shutdown.Microseconds()))
	m.teller.Tell("STATUS=shutting down")
}

// forced reports that the time to end is over, and what still runs is killed.
func (m *serviceManager) forced() {
	if m == nil {
		return
	}
	m.teller.Tell(fmt.Sprintf("STATUS=shutting down: killing what is left\nEXTEND_TIMEOUT_USEC=%d", killedTimeout.Microseconds()))
}

// ended reports that the program ends, and err as the reason, if the tree ended with an error or
// did not start. It waits briefly until systemd has read that.
func (m *serviceManager) ended(err error) {
	if m == nil {
		return
	}
	m.mu.Lock()
	if m.stop != nil {
		m.stop()
	}
	var states []string
	if !m.ending {
		states = append(states, daemon.SdNotifyStopping)
	}
	m.ending = true
	if err != nil {
		states = append(states, statusOf(err))
		if errno, ok := errors.AsType[syscall.Errno](err); ok && errno != 0 {
			states = append(states, fmt.Sprintf("ERRNO=%d", int(errno)))
		}
	}
	if len(states) > 0 {
		m.teller.Tell(strings.Join(states, "\n"))
	}
	m.mu.Unlock()
	m.teller.Flush(tellTimeout)
}

// statusOf returns an error as a status, in one line: a line is a variable of sd_notify(3).
func statusOf(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return "STATUS=" + supervisor.Cut(line)
}

// tell sends states, and the status if it has changed. It does not wait.
func (m *serviceManager) tell(states ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ending {
		return
	}
	again := m.failed && slices.Contains(states, daemon.SdNotifyReady)
	if status := m.tree.status(); status != m.status || again {
		m.status, m.failed = status, false
		states = append(states, "STATUS="+status)
	}
	if len(states) == 0 {
		return
	}
	m.teller.Tell(strings.Join(states, "\n"))
}

// status returns the tree's state in a few words: "web 3 of 4 ready".
func (t Tree) status() string {
	var parts []string
	t.Walk(func(n Tree) {
		if n.Role != RolePool {
			return
		}
		ready, slots := 0, 0
		for _, w := range n.Children {
			if w.Role == RoleSpare || w.Role == RoleDraining || w.Role == RoleCandidate {
				continue
			}
			slots++
			if w.State == StateRunning {
				ready++
			}
		}
		parts = append(parts, fmt.Sprintf("%s %d of %d ready", n.Name, ready, slots))
	})
	if len(parts) == 0 {
		return string(t.State)
	}
	return strings.Join(parts, ", ")
}
