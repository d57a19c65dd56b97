package process

import (
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// TestQuotaCPUs: the lowest quota of the cgroups up to the root, of either version, rounded as the
// Go runtime does.
func TestQuotaCPUs(t *testing.T) {
	const none = math.MaxInt
	for _, tt := range []struct {
		name   string
		cgroup string
		files  map[string]string
		want   int
	}{
		{"no cgroups", "", nil, none},
		{"version 2", "0::/a\n", map[string]string{"a/cpu.max": "400000 100000\n"}, 4},
		{"a fraction", "0::/a\n", map[string]string{"a/cpu.max": "210000 100000\n"}, 3},
		{"less than 2", "0::/a\n", map[string]string{"a/cpu.max": "50000 100000\n"}, 2},
		{"no limit", "0::/a\n", map[string]string{"a/cpu.max": "max 100000\n"}, none},
		{"of a parent", "0::/a/b\n", map[string]string{"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3},
		{"in a container, by the host's path", "0::/docker/x\n", map[string]string{"cpu.max": "500000 100000\n"}, 5},
		{"version 1", "4:cpu,cpuacct:/a\n3:memory:/a\n", map[string]string{
			"cpu/a/cpu.cfs_quota_us": "600000\n", "cpu/a/cpu.cfs_period_us": "100000\n",
			"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n",
		}, 6},
		{"nonsense", "0::/a\n", map[string]string{"a/cpu.max": "lots\n"}, none},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write := func(name, text string) {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			write("cgroup", tt.cgroup)
			for name, text := range tt.files {
				write("fs/"+name, text)
			}
			if got := quotaCPUs(dir+"/cgroup", dir+"/fs"); got != tt.want {
				t.Errorf("%d CPUs, want %d", got, tt.want)
			}
		})
	}
}

var defaultProcs = runtime.GOMAXPROCS(0)

// TestCPUs: as many as Go chooses for GOMAXPROCS, whatever that is set to later.
func TestCPUs(t *testing.T) {
	if os.Getenv("GOMAXPROCS") != "" {
		t.Skip("GOMAXPROCS is set")
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if got := CPUs(); got != defaultProcs {
		t.Errorf("%d CPUs, Go chose %d", got, defaultProcs)
	}
}
