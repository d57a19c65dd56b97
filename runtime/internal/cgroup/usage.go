package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ResourceUsage is what the processes of a group use, and its limits. What the kernel does not
// tell, and a limit that there is not, is zero.
type ResourceUsage struct {
	Memory     int64 `json:"memory_bytes,omitempty"`
	MemoryPeak int64 `json:"memory_peak_bytes,omitempty"` // since Linux 5.19
	MemoryHigh int64 `json:"memory_high_bytes,omitempty"`
	MemoryMax  int64 `json:"memory_max_bytes,omitempty"`

	// Counts of memory.events: how often the group was throttled at MemoryHigh, was about to exceed
	// MemoryMax, had no memory left, and how many processes the kernel has killed for that.
	HighEvents uint64 `json:"memory_high_events,omitempty"`
	MaxEvents  uint64 `json:"memory_max_events,omitempty"`
	OOMEvents  uint64 `json:"oom_events,omitempty"`
	OOMKills   uint64 `json:"oom_kills,omitempty"`

	CPUSeconds       float64 `json:"cpu_seconds"`
	ThrottledSeconds float64 `json:"cpu_throttled_seconds,omitempty"` // by the quota
	CPUQuota         int     `json:"cpu_quota_percent,omitempty"`     // of one CPU
	Tasks            int64   `json:"tasks,omitempty"`
	TasksMax         int64   `json:"tasks_max,omitempty"`

	CPUPressure    Pressure `json:"cpu_pressure"`
	MemoryPressure Pressure `json:"memory_pressure"`
	IOPressure     Pressure `json:"io_pressure"`
}

// Pressure is for how long some of the processes, and all of them at once, had to wait for a
// resource: as a share of the last 10 s, and so far.
type Pressure struct {
	SomePercent float64 `json:"some_percent"`
	FullPercent float64 `json:"full_percent"`
	SomeSeconds float64 `json:"some_seconds"`
	FullSeconds float64 `json:"full_seconds"`
}

// LastUsage is Usage, which returns nil from then on.
func (g *Cgroup) LastUsage() *ResourceUsage {
	u := g.Usage()
	g.over.Store(true)
	return u
}

// Usage reads what the group uses; nil of none, or if it is gone.
func (g *Cgroup) Usage() *ResourceUsage {
	read := func(file string) []byte {
		b, _ := os.ReadFile(filepath.Join(g.dir, file))
		return b
	}
	if g == nil || g.over.Load() || read(eventsFile) == nil {
		return nil
	}
	cpu, memory, quota := parseKeys(read("cpu.stat")), parseKeys(read(memoryEvents)), read("cpu.max")
	u := &ResourceUsage{
		Memory: parseNumber(read("memory.current"), 0), MemoryPeak: parseNumber(read("memory.peak"), 0),
		MemoryHigh: parseNumber(read("memory.high"), 0), MemoryMax: parseNumber(read("memory.max"), 0),
		HighEvents: memory["high"], MaxEvents: memory["max"], OOMEvents: memory["oom"], OOMKills: memory["oom_kill"],
		CPUSeconds: micro(cpu["usage_usec"]), ThrottledSeconds: micro(cpu["throttled_usec"]),
		Tasks: parseNumber(read("pids.current"), 0), TasksMax: parseNumber(read("pids.max"), 0),
		CPUPressure: parsePressure(read("cpu.pressure")), MemoryPressure: parsePressure(read("memory.pressure")), IOPressure: parsePressure(read("io.pressure")),
	}
	if period := parseNumber(quota, 1); period > 0 {
		u.CPUQuota = int(100 * float64(parseNumber(quota, 0)) / float64(period))
	}
	return u
}

// String returns use and limits in one line, as "memory 34.1/128.0 MiB, peak 90.2; CPU 1.25 s of
// 150%; tasks 9/64; waits for memory 12%".
func (u ResourceUsage) String() string {
	var b strings.Builder
	if u.Memory+u.MemoryPeak+u.MemoryMax > 0 {
		fmt.Fprintf(&b, "memory %s", mib(u.Memory))
		if u.MemoryMax > 0 {
			fmt.Fprintf(&b, "/%s", mib(u.MemoryMax))
		}
		fmt.Fprintf(&b, " MiB, peak %s; ", mib(u.MemoryPeak))
	}
	fmt.Fprintf(&b, "CPU %.2f s", u.CPUSeconds)
	if u.CPUQuota > 0 {
		fmt.Fprintf(&b, " of %d%%", u.CPUQuota)
	}
	if u.Tasks > 0 {
		fmt.Fprintf(&b, "; tasks %d", u.Tasks)
		if u.TasksMax > 0 {
			fmt.Fprintf(&b, "/%d", u.TasksMax)
		}
	}
	for i, p := range []Pressure{u.CPUPressure, u.MemoryPressure, u.IOPressure} {
		if p.SomePercent >= 1 {
			fmt.Fprintf(&b, "; waits for %s %.0f%%", []string{"CPU", "memory", "I/O"}[i], p.SomePercent)
		}
	}
	if u.OOMKills > 0 {
		fmt.Fprintf(&b, "; %d killed for want of memory", u.OOMKills)
	}
	return b.String()
}

func mib(bytes int64) string { return fmt.Sprintf("%.1f", float64(bytes)/(1<<20)) }
