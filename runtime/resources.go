package coppice

import (
	"fmt"
	"strconv"

	"github.com/coppice-go/coppice/runtime/internal/cgroup"
)

// Resources are limits of a process and of all that it starts, which the kernel keeps by a cgroup
// (control group, version 2). The names are systemd's. With any field set, each process has a
// cgroup of its own, from its first instruction to its end: what it leaves behind is killed,
// whatever it has done to hide, and the cgroup is removed. The tree shows what the cgroup uses, see
// [ResourceUsage]. The zero value makes no cgroup.
//
// The master needs a cgroup that is delegated to it: of a systemd service with Delegate=yes, or
// root where cgroups can be written to. docs/limits.md has the rules. If the system lacks something
// for a field, the start fails with an error that names the field.
type Resources struct {
	// MemoryMax is how many bytes of memory they may have, page cache included. If that is not
	// enough even without the cache, the kernel kills them all, and the exit has the OOM
	// "certain". MemoryHigh is a limit above which they are slowed down and give memory back, but
	// are not killed.
	MemoryMax, MemoryHigh int64

	// CPUQuota is how much CPU time they get, in percent of one CPU: 150 = one and a half. Go
	// programs choose GOMAXPROCS by it.
	CPUQuota int

	// CPUWeight is their share of the CPUs when these are busy, among the cgroups of the tree: 1 to
	// 10000; one without it has 100, as the master has.
	CPUWeight int

	// TasksMax is how many threads they may have in all. A Go program has some ten.
	TasksMax int

	// Accounting makes the cgroup even without a limit.
	Accounting bool
}

// ResourceUsage is what the processes of a cgroup use and its limits, zero where there is none or
// the kernel does not tell. In bytes: Memory now, MemoryPeak, and the limits MemoryHigh and
// MemoryMax. HighEvents, MaxEvents and OOMEvents are how often it was slowed down at MemoryHigh,
// was about to exceed MemoryMax, and had no memory left; OOMKills how many processes the kernel has
// killed for that. CPUSeconds is CPU time, ThrottledSeconds how long the CPUQuota (percent of one
// CPU) held it up. Tasks are threads, TasksMax their limit. CPUPressure, MemoryPressure and
// IOPressure tell how long it had to wait. String returns one line.
type ResourceUsage = cgroup.ResourceUsage

// Pressure is for how long some of the processes, and all of them at once, had to wait for a
// resource: SomePercent and FullPercent of the last 10 s; SomeSeconds and FullSeconds so far. It is
// the kernel's pressure stall information (PSI).
type Pressure = cgroup.Pressure

func (r Resources) validate(bad reportInvalid, path string, e Environment) {
	const in = "Environment.Resources."
	for _, f := range []struct {
		name       string
		value, max int64
	}{
		{"MemoryMax", r.MemoryMax, 1 << 62},
		{"MemoryHigh", r.MemoryHigh, 1 << 62},
		{"CPUQuota", int64(r.CPUQuota), 1 << 20},
		{"CPUWeight", int64(r.CPUWeight), 10000},
		{"TasksMax", int64(r.TasksMax), 1 << 22},
	} {
		if f.value < 0 || f.value > f.max {
			bad(path, in+f.name, f.value, fmt.Sprintf("is not between 1 and %d, or 0 for none", f.max))
		}
	}
	if r.MemoryMax > 0 && r.MemoryHigh > r.MemoryMax {
		bad(path, in+"MemoryHigh", r.MemoryHigh, "is above MemoryMax")
	}
	if r != (Resources{}) && e.Cgroup != "" {
		bad(path, "Environment.Cgroup", e.Cgroup, "stands beside Resources, which make a cgroup")
	}
}

// settings returns what is written to the files of a group.
func (r Resources) settings() (all []cgroup.Setting) {
	add := func(value int64, field, file, text string) {
		if value != 0 {
			all = append(all, cgroup.Setting{Field: fmt.Sprintf("%s %d", field, value), File: file, Value: text})
		}
	}
	add(r.MemoryMax, "MemoryMax", "memory.max", strconv.FormatInt(r.MemoryMax, 10))
	add(r.MemoryMax, "MemoryMax", "memory.oom.group", "1") // all are killed together: what is left could not go on
	add(r.MemoryHigh, "MemoryHigh", "memory.high", strconv.FormatInt(r.MemoryHigh, 10))
	const period = 100_000 // µs; the kernel's default
	add(int64(r.CPUQuota), "CPUQuota", "cpu.max", fmt.Sprint(r.CPUQuota*period/100, period))
	add(int64(r.CPUWeight), "CPUWeight", "cpu.weight", strconv.Itoa(r.CPUWeight))
	add(int64(r.TasksMax), "TasksMax", "pids.max", strconv.Itoa(r.TasksMax))
	return all
}
