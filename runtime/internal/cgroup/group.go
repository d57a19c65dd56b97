package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// A Cgroup is a cgroup of one process of the tree and of all that it starts. A nil Cgroup is none.
type Cgroup struct {
	dir  string
	over atomic.Bool // LastUsage was called
}

// At returns the group that an earlier image of this program has made as dir; nil for "".
func At(dir string) *Cgroup {
	if dir == "" {
		return nil
	}
	return &Cgroup{dir: dir}
}

// Dir returns the directory of the group; "" of none.
func (g *Cgroup) Dir() string {
	if g == nil {
		return ""
	}
	return g.dir
}

// Events returns the file with the counts of the kernel's out-of-memory killer.
func (g *Cgroup) Events() string {
	if g == nil {
		return ""
	}
	return filepath.Join(g.dir, memoryEvents)
}

// Kill sends SIGKILL to all processes of the group and below it, those included that are being
// forked. It does nothing if the group is gone, or none, or after LastUsage: another group may have
// its name then.
func (g *Cgroup) Kill() error {
	if g == nil || g.over.Load() {
		return nil
	}
	return g.kill()
}

func (g *Cgroup) kill() error { return gone(write(g.dir, killFile, "1")) }

// Remove kills what is in the group and removes it, with the groups that its processes have made
// below it. It waits until the kernel has buried them, at most for patience. The Cgroup is not used
// after that.
func (g *Cgroup) Remove(patience time.Duration) error {
	if g == nil {
		return nil
	}
	err := g.kill()
	end := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, maxPause) {
		removed := remove(g.dir)
		if removed == nil || time.Now().After(end) {
			return errors.Join(err, removed)
		}
		time.Sleep(pause)
		err = g.kill() // of a process that was moved in
	}
}

// maxPause bounds the time between two tries to remove a group: the kernel can only be asked.
const maxPause = 50 * time.Millisecond

// remove removes a group without processes, and those below it.
func remove(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return gone(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return gone(os.Remove(dir))
}

// gone returns err unless it says that the group is not there any more.
func gone(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errGone) {
		return nil
	}
	return err
}
