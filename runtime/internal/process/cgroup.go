package process

import (
	"iter"
	"os"
	"path/filepath"
	"strings"
)

// cgroupDirs yields the directories of the cgroups, of either version, that the file cgroup names
// for a controller, and of their parents up to the root of the hierarchy at mount.
func cgroupDirs(cgroup, mount, controller string) iter.Seq[string] {
	b, _ := os.ReadFile(cgroup)
	return func(yield func(string) bool) {
		for line := range strings.Lines(string(b)) {
			f := strings.SplitN(strings.TrimSpace(line), ":", 3) // hierarchy:controllers:path (cgroups(7))
			if len(f) != 3 {
				continue
			}
			root := mount
			switch {
			case f[0] == "0":
			case strings.Contains(","+f[1]+",", ","+controller+","):
				root = filepath.Join(mount, controller)
			default:
				continue
			}
			for dir := filepath.Clean("/" + f[2]); ; dir = filepath.Dir(dir) {
				if !yield(filepath.Join(root, dir)) {
					return
				}
				if dir == "/" {
					break
				}
			}
		}
	}
}
