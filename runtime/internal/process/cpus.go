package process

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
)

// CPUs returns how many CPUs this program may use, by its affinity and by the quotas of its
// cgroups: Go's default for GOMAXPROCS. GOMAXPROCS itself does not count. The first call decides,
// so that all parts of the program have the same number.
var CPUs = sync.OnceValue(func() int {
	return min(runtime.NumCPU(), quotaCPUs("/proc/self/cgroup", "/sys/fs/cgroup"))
})

// quotaCPUs returns the lowest quota of the cgroups that the file cgroup names and of their
// parents, in CPUs, rounded up, and at least 2, as the Go runtime does.
func quotaCPUs(cgroup, mount string) int {
	lowest := math.MaxInt
	for dir := range cgroupDirs(cgroup, mount, "cpu") {
		quota, period := cpuQuota(dir)
		if quota > 0 && period > 0 {
			lowest = min(lowest, int(max(2, (quota+period-1)/period)))
		}
	}
	return lowest
}

// cpuQuota returns how many microseconds in each period the processes of a cgroup, of either
// version, may run; 0 = no limit.
func cpuQuota(dir string) (quota, period int64) {
	b, err := os.ReadFile(filepath.Join(dir, "cpu.max")) // "200000 100000", or "max 100000"
	if err != nil {
		b, _ = os.ReadFile(filepath.Join(dir, "cpu.cfs_quota_us")) // -1 is none
		p, _ := os.ReadFile(filepath.Join(dir, "cpu.cfs_period_us"))
		b = append(b, p...)
	}
	f := bytes.Fields(b)
	if len(f) != 2 {
		return 0, 0
	}
	quota, _ = strconv.ParseInt(string(f[0]), 10, 64)
	period, _ = strconv.ParseInt(string(f[1]), 10, 64)
	return quota, period
}
