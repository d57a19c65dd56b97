package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// OOM is whether the kernel's out-of-memory killer ended a process. The kernel
// does not say so to the parent: a victim dies of SIGKILL as any other. So it is
// an inference from counters, and says how far it goes.
type OOM uint8

const (
	NotOOM      OOM = iota // no counter says so, or none can be read
	PossiblyOOM            // a kill was counted meanwhile, where other processes are counted too
	OOMKilled              // a kill was counted in the cgroup that the process had apart from ours
)

// counter is a file of lines "key value" with a key oom_kill, and what it said.
type counter struct {
	file string
	base uint64
}

// read returns what the counter says now.
func (c counter) read() (uint64, bool) {
	b, err := os.ReadFile(c.file)
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte("oom_kill ")); ok {
			n, err := strconv.ParseUint(string(bytes.TrimSpace(v)), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// rose reports whether the counter is higher than at the beginning.
func (c counter) rose() bool {
	n, ok := c.read()
	return ok && n > c.base
}

// OOMGauge tells, when a process died of a SIGKILL that the master did not send, whether the kernel
// was out of memory.
type OOMGauge struct {
	own, shared counter // of its cgroup, if not ours; of ours, or of the whole system
}

// GaugeOOM takes the counters as they are for the process with that number, a child
// of ours that is not reaped. What it does not find it does without.
func GaugeOOM(pid int) OOMGauge {
	var g OOMGauge
	ours, its := memoryEvents("self"), memoryEvents(strconv.Itoa(pid))
	if its != ours {
		g.own.watch(its)
	}
	if !g.shared.watch(ours) {
		g.shared.watch("/proc/vmstat")
	}
	return g
}

func (c *counter) watch(file string) bool {
	n, ok := counter{file: file}.read()
	if ok {
		*c = counter{file, n}
	}
	return ok
}

// Verdict is asked once the process has ended, of SIGKILL.
func (g OOMGauge) Verdict() OOM {
	switch {
	case g.own.rose():
		return OOMKilled
	case g.shared.rose():
		return PossiblyOOM
	}
	return NotOOM
}

// An OOMWatch gauges again from time to time, so that a kill that was counted long
// ago proves nothing, and that a process which was put in another cgroup is found
// there.
type OOMWatch struct {
	pid int

	mu        sync.Mutex
	now, then OOMGauge
	timer     *time.Timer // of the next look; nil once the process has ended
}

// lookOOM is the time between two looks: a kill that was counted two looks ago is not that of the
// process.
const lookOOM = 10 * time.Second

// WatchOOM begins to watch for the process with that number, as [GaugeOOM] does. Stop ends it.
func WatchOOM(pid int) *OOMWatch {
	g := GaugeOOM(pid)
	w := &OOMWatch{pid: pid, now: g, then: g}
	w.mu.Lock() // for Look
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(lookOOM, w.Look)
	return w
}

// Look gauges again. What was counted since the look before the last is what the verdict goes by.
func (w *OOMWatch) Look() {
	g := GaugeOOM(w.pid)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.then, w.now = w.now, g
		w.timer.Reset(lookOOM)
	}
}

// Stop ends the looks, as soon as the process has ended.
func (w *OOMWatch) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
	w.timer = nil
}

// Verdict is as of [OOMGauge]. It is asked after Stop.
func (w *OOMWatch) Verdict() OOM { return max(w.then.Verdict(), w.now.Verdict()) }

// memoryEvents returns the file with the OOM counter of the cgroup that a process
// is in: memory.events (cgroup v2), memory.oom_control (v1); "" for none. The root
// cgroup of v2 has none.
func memoryEvents(pid string) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%s/cgroup", pid))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		// hierarchy-ID:controllers:path (cgroups(7)); v2 is 0 and without controllers.
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		var file string
		switch {
		case f[0] == "0" && f[1] == "":
			file = filepath.Join("/sys/fs/cgroup", f[2], "memory.events")
		case f[1] == "memory":
			file = filepath.Join("/sys/fs/cgroup/memory", f[2], "memory.oom_control")
		}
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); err == nil {
			return file
		}
	}
	return ""
}
