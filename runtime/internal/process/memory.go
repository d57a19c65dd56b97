package process

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// MemoryLimit returns how many bytes this program may use: its GOMEMLIMIT, or the lowest limit of
// its cgroups, or the machine's memory; 0 if none can be read.
func MemoryLimit() int64 {
	if own := debug.SetMemoryLimit(-1); own != math.MaxInt64 {
		return own
	}
	if limit := CgroupMemory(); limit > 0 {
		return limit
	}
	return machineMemory("/proc/meminfo")
}

// CgroupMemory returns the lowest memory limit of this program's cgroups, in bytes; 0 if none is
// below the machine's memory.
func CgroupMemory() int64 {
	return lowestBelow(machineMemory("/proc/meminfo"), cgroupLimits("/proc/self/cgroup", "/sys/fs/cgroup"))
}

// lowestBelow returns the lowest limit that is less than machine, which is 0 if it is not known; 0
// = there is none. Version 1 of cgroups has a very large number for no limit.
func lowestBelow(machine int64, limits []int64) (lowest int64) {
	for _, l := range limits {
		if l > 0 && (machine == 0 || l < machine) && (lowest == 0 || l < lowest) {
			lowest = l
		}
	}
	return lowest
}

func machineMemory(meminfo string) int64 {
	b, _ := os.ReadFile(meminfo)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "MemTotal:" {
			kib, _ := strconv.ParseInt(f[1], 10, 53)
			return kib << 10
		}
	}
	return 0
}

// cgroupLimits returns the memory limits of the cgroups, of either version, that the file cgroup
// names, and of their parents up to the root of the hierarchy at mount.
func cgroupLimits(cgroup, mount string) []int64 {
	var limits []int64
	for dir := range cgroupDirs(cgroup, mount, "memory") {
		for _, file := range []string{"memory.max", "memory.limit_in_bytes"} { // of version 2, of version 1
			b, _ := os.ReadFile(filepath.Join(dir, file))
			if l, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil { // "max" is none
				limits = append(limits, l)
			}
		}
	}
	return limits
}
