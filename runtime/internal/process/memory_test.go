package process

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"testing"
)

// TestMemoryLimit: the program's own limit first, then the lowest of its cgroups
// up to the root, of either version.
func TestMemoryLimit(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"cgroup":                            "4:memory:/a\n3:cpu,cpuacct:/a\n0::/b/c\n",
		"fs/memory/a/memory.limit_in_bytes": "3000\n",
		"fs/memory/memory.limit_in_bytes":   "9223372036854771712\n",
		"fs/b/c/memory.max":                 "max\n",
		"fs/b/memory.max":                   "2000\n",
		"meminfo":                           "MemFree: 1 kB\nMemTotal:       5 kB\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := cgroupLimits(dir+"/cgroup", dir+"/fs"), []int64{3000, 9223372036854771712, 2000}; !slices.Equal(got, want) {
		t.Errorf("cgroups %v, want %v", got, want)
	}
	limits := cgroupLimits(dir+"/cgroup", dir+"/fs")
	if got := lowestBelow(2500, limits); got != 2000 {
		t.Errorf("the lowest limit is %d", got)
	}
	if got := lowestBelow(1500, limits); got != 0 {
		t.Errorf("no limit is below the machine's memory, got %d", got)
	}
	if got := machineMemory(dir + "/meminfo"); got != 5<<10 {
		t.Errorf("machine %d", got)
	}
	if got := machineMemory(dir + "/nothing"); got != 0 {
		t.Errorf("no machine: %d", got)
	}
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(7 << 30))
	if got := MemoryLimit(); got != 7<<30 {
		t.Errorf("own limit: %d", got)
	}
}
