package coppice

import (
	"path"
	"slices"
	"sync"

	"go.opentelemetry.io/otel/attribute"

	"github.com/coppice-go/coppice/runtime/internal/cgroup"
	"github.com/coppice-go/coppice/tracing"
)

// groupMetrics has the metrics that add up counts of groups.
type groupMetrics struct {
	mu   sync.Mutex
	sums []*groupSum
}

// groupSum is a metric that adds up one count.
type groupSum struct {
	*tracing.Instrument
	more  []attribute.KeyValue
	count func(*ResourceUsage) int64
	growing
}

func newGroupMetrics() *groupMetrics {
	m := &groupMetrics{}
	add := func(i *tracing.Instrument, count func(*ResourceUsage) int64, more ...attribute.KeyValue) {
		m.sums = append(m.sums, &groupSum{i, more, count, growing{sums: map[string]int64{}}})
	}
	add(tracing.CgroupCPU, func(u *ResourceUsage) int64 { return nanoseconds(u.CPUSeconds) })
	add(tracing.CgroupThrottled, func(u *ResourceUsage) int64 { return nanoseconds(u.ThrottledSeconds) })
	for event, count := range map[string]func(*ResourceUsage) uint64{
		"high": func(u *ResourceUsage) uint64 { return u.HighEvents }, "max": func(u *ResourceUsage) uint64 { return u.MaxEvents },
		"oom": func(u *ResourceUsage) uint64 { return u.OOMEvents }, "oom_kill": func(u *ResourceUsage) uint64 { return u.OOMKills },
	} {
		add(tracing.CgroupMemoryEvents, func(u *ResourceUsage) int64 { return int64(count(u)) }, tracing.KeyCgroupEvent.String(event))
	}
	for resource, of := range map[string]func(*ResourceUsage) Pressure{
		"cpu": func(u *ResourceUsage) Pressure { return u.CPUPressure }, "memory": func(u *ResourceUsage) Pressure { return u.MemoryPressure },
		"io": func(u *ResourceUsage) Pressure { return u.IOPressure },
	} {
		waits := tracing.KeyCgroupResource.String(resource)
		add(tracing.CgroupPressure, func(u *ResourceUsage) int64 { return nanoseconds(of(u).SomeSeconds) }, waits, tracing.KeyCgroupStall.String("some"))
		add(tracing.CgroupPressure, func(u *ResourceUsage) int64 { return nanoseconds(of(u).FullSeconds) }, waits, tracing.KeyCgroupStall.String("full"))
	}
	return m
}

func nanoseconds(s float64) int64 { return int64(s * 1e9) }

// measure emits what the groups of a tree use, by place: also the sums of those that a place had
// before.
func (m *groupMetrics) measure(tree func() Tree, emit func(*tracing.Instrument, int64, ...attribute.KeyValue)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	used, labels := map[uint64]Tree{}, map[string][]attribute.KeyValue{}
	tree().walk("", func(at string, t Tree) {
		if t.Resources == nil {
			return
		}
		pool := ""
		if t.Role != RoleProcess {
			pool = path.Dir(at)
		}
		used[groupNumber(t.ID, t.PID)] = t
		labels[t.Name] = []attribute.KeyValue{tracing.KeyPool.String(pool), tracing.KeyChildPath.String(t.Name)}
		for i, value := range map[*tracing.Instrument]int64{
			tracing.CgroupMemory: t.Resources.Memory, tracing.CgroupMemoryPeak: t.Resources.MemoryPeak,
			tracing.CgroupMemoryLimit: t.Resources.MemoryMax, tracing.CgroupTasks: t.Resources.Tasks,
		} {
			if value > 0 {
				emit(i, value, labels[t.Name]...)
			}
		}
	})
	for _, s := range m.sums {
		now := map[uint64]counted{}
		for id, t := range used {
			now[id] = counted{t.Name, s.count(t.Resources)}
		}
		for place, n := range s.add(now) {
			if l, ok := labels[place]; ok { // the sum of another stays as it was
				emit(s.Instrument, n, slices.Concat(l, s.more)...)
			}
		}
	}
}

// groupNumber returns the number by which the counts of a process's group are known: a worker's ID,
// or that of a program, by its pid.
func groupNumber(id, pid int) uint64 {
	if id != 0 {
		return uint64(id)
	}
	return 1<<32 | uint64(pid)
}

// ended adds and returns what the group of a process has counted, which has ended; nil = it had
// none.
func (m *groupMetrics) ended(number uint64, place string, g *cgroup.Cgroup) *ResourceUsage {
	if g == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	u := g.LastUsage()
	if u == nil {
		return nil
	}
	for _, s := range m.sums {
		s.sums[place] += s.count(u) - s.last[number]
		delete(s.last, number)
	}
	return u
}
