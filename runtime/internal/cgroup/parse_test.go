package cgroup

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestDirectories: the cgroup is found by the mounts that show it, in namespaces and beside version
// 1.
func TestDirectories(t *testing.T) {
	const (
		unified = "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
		hybrid  = "30 22 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n31 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
			"32 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
		docker = "40 22 0:26 /docker/a\\040b /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n" // of the host's namespace
	)
	for _, tt := range []struct {
		name, mountinfo, cgroup string
		want                    []string
	}{
		{"a service", unified, "0::/system.slice/a.service\n", []string{"/sys/fs/cgroup/system.slice/a.service"}},
		{"the root", unified, "0::/\n", []string{"/sys/fs/cgroup"}},
		{"both versions", hybrid, "4:memory:/x\n1:name=systemd:/\n0::/a\n", []string{"/sys/fs/cgroup/unified/a"}},
		{"two mounts", unified + hybrid, "0::/a\n", []string{"/sys/fs/cgroup/a", "/sys/fs/cgroup/unified/a"}},
		{"a part is mounted", docker, "0::/docker/a b/c\n", []string{"/sys/fs/cgroup/c"}},
		{"another part is mounted", docker, "0::/docker/a bc\n", nil},
		{"outside of the namespace", unified, "0::/../a\n", nil},
		{"version 1 alone", "31 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", "4:memory:/x\n", nil},
		{"nothing", "", "", nil},
	} {
		if got := directories(tt.mountinfo, tt.cgroup); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestParse: files of the kernel's, and what is no such file.
func TestParse(t *testing.T) {
	if got := parseKeys([]byte("low 0\nmax 7\noom_kill 3\nbad x\nthree 1 2\n")); !maps.Equal(got, map[string]uint64{"low": 0, "max": 7, "oom_kill": 3}) {
		t.Errorf("keys %v", got)
	}
	for text, want := range map[string]int64{"max\n": 0, "134217728\n": 134217728, "": 0, "-1\n": 0, "x": 0} {
		if got := parseNumber([]byte(text), 0); got != want {
			t.Errorf("%q is %d, want %d", text, got, want)
		}
	}
	if got := parseNumber([]byte("50000 100000\n"), 1); got != 100000 {
		t.Errorf("the second number is %d", got)
	}
	got := parsePressure([]byte("some avg10=12.50 avg60=1.00 avg300=0.00 total=2500000\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=1000000\n"))
	if want := (Pressure{12.5, 0.25, 2.5, 1}); got != want {
		t.Errorf("pressure %v, want %v", got, want)
	}
}

// FuzzParse: whatever a file says, what is read of it is in its range.
func FuzzParse(f *testing.F) {
	f.Add("29 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/a\n")
	f.Add("40 22 0:26 /docker/a\\040b /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n", "4:memory:/x\n0::/docker/a b\n")
	f.Add("some avg10=12.50 avg60=1.00 avg300=0.00 total=2500000\nfull avg10=NaN total=-1\n", "max 100000\n")
	f.Add("oom_kill 3\nlow 18446744073709551616\n", "50000 100000\n")
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, dir := range directories(a, b) {
			if strings.Contains("/"+dir+"/", "/../") && !strings.Contains(a, "..") && !strings.Contains(b, "..") {
				t.Errorf("%q", dir)
			}
		}
		for key := range parseKeys([]byte(a)) {
			if key == "" || strings.ContainsAny(key, " \n") {
				t.Errorf("key %q", key)
			}
		}
		if n := parseNumber([]byte(b), 0); n < 0 {
			t.Errorf("number %d", n)
		}
		if p := parsePressure([]byte(a)); !(p.SomePercent >= 0 && p.SomePercent <= 100 && p.FullPercent >= 0 && p.FullPercent <= 100 && p.SomeSeconds >= 0 && p.FullSeconds >= 0) {
			t.Errorf("pressure %v", p)
		}
		if name := safe(a); len(name) > 128 || strings.ContainsAny(name, "/\n#") || strings.HasPrefix(name, ".") {
			t.Errorf("name %q", name)
		}
	})
}
