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

// OOM is how likely it is that the kernel's out-of-memory killer ended a process. The kernel does
// not report that to the parent: a victim dies of SIGKILL like any other process. So OOM is
// inferred from counters.
type OOM uint8

const (
	NotOOM      OOM = iota // no counter rose, or none can be read
	PossiblyOOM            // a kill was counted in that time, where other processes are counted too
	OOMKilled              // a kill was counted in the cgroup of the process, which is not ours
)

// counter is a file of lines "key value" with a key oom_kill, and its value at the beginning.
type counter struct {
	file string
	base uint64
}

// read returns the counter's value now.
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

// OOMGauge finds out, when a process died of a SIGKILL that the master did not send, whether the
// out-of-memory killer sent it.
type OOMGauge struct {
	own, shared counter // of the process's cgroup, if not ours; of our cgroup, or of the system
}

// GaugeOOM reads the counters for the process pid, a child of ours that is not reaped. It ignores
// counters that it cannot read. group is that of a cgroup which has only this process and what it
// starts; if it can be read, no other counts.
func GaugeOOM(pid int, group string) OOMGauge {
	var g OOMGauge
	if g.own.watch(group) {
		return g
	}
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

// Verdict returns the OOM of a process that has ended of SIGKILL.
func (g OOMGauge) Verdict() OOM {
	switch {
	case g.own.rose():
		return OOMKilled
	case g.shared.rose():
		return PossiblyOOM
	}
	return NotOOM
}

// An OOMWatch reads the counters again from time to time, so that a kill long ago does not count,
// and that it follows a process that was moved to another cgroup.
type OOMWatch struct {
	pid   int
	group string // as of GaugeOOM
	each  func() // called with each look but the first; nil = none

	mu        sync.Mutex
	now, then OOMGauge
	timer     *time.Timer // of the next look; nil once the process has ended
}

// lookOOM is the time between two looks. A kill that was counted two looks ago cannot be that of
// the process.
const lookOOM = 10 * time.Second

// WatchOOM begins to watch the counters for the process pid, see [GaugeOOM]. A group has counted
// nothing before. Stop ends it. each is called with each look at them.
func WatchOOM(pid int, group string, each func()) *OOMWatch {
	g := GaugeOOM(pid, group)
	if g.own.file == group {
		g.own.base = 0
	}
	w := &OOMWatch{pid: pid, group: group, each: each, now: g, then: g}
	w.mu.Lock() // for Look
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(lookOOM, w.Look)
	return w
}

// Look reads the counters again. The verdict counts kills since the look before the last.
func (w *OOMWatch) Look() {
	g := GaugeOOM(w.pid, w.group)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.then, w.now = w.now, g
		w.timer.Reset(lookOOM)
		if w.each != nil {
			w.each()
		}
	}
}

// Stop ends the looks. Call it as soon as the process has ended.
func (w *OOMWatch) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
	w.timer = nil
}

// Verdict returns the OOM of the process, as [OOMGauge.Verdict] does. Call it after Stop.
func (w *OOMWatch) Verdict() OOM { return max(w.then.Verdict(), w.now.Verdict()) }

// Events returns what the kernel has counted in the process's cgroup since it was made, in one
// line: what is not 0 of memory.events and pids.events, and the most memory. It is empty if the
// process was in our cgroup, and if the cgroup is gone. Call it after Stop.
func (w *OOMWatch) Events() string {
	w.mu.Lock()
	file := w.now.own.file
	w.mu.Unlock()
	if filepath.Base(file) != "memory.events" {
		return ""
	}
	var counts []string
	for _, name := range []string{"memory.events", "pids.events", "memory.peak"} {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(file), name))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); !strings.HasSuffix(" "+line, " 0") {
				counts = append(counts, strings.TrimSuffix(name, ".events")+" "+line)
			}
		}
	}
	if counts == nil {
		return ""
	}
	return strings.TrimPrefix(filepath.Dir(file), "/sys/fs/cgroup") + ": " + strings.Join(counts, ", ")
}

// memoryEvents returns the file with the OOM counter of the cgroup of a process: memory.events
// (cgroup v2), memory.oom_control (v1); "" for none. The root cgroup of v2 has none.
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
