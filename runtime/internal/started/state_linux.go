package started

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// rlimits is how many resource limits there are (RLIM_NLIMITS).
const rlimits = 16

var (
	umask  int
	limits [rlimits]uint64
)

func captureLimits() { umask, limits = currentUmask(), softLimits() }

// currentUmask sets the mask for a moment, to read it: to none that would allow more.
func currentUmask() int {
	mask := unix.Umask(0o777)
	unix.Umask(mask)
	return mask
}

func softLimits() (soft [rlimits]uint64) {
	for i := range soft {
		var l unix.Rlimit
		_ = unix.Prlimit(0, i, nil, &l) // it cannot fail: 0 for a limit that there is not
		soft[i] = l.Cur
	}
	return soft
}

// State returns the umask, and the soft limits that have changed since by their numbers, for
// [Restore] in a child that is this program again: "umask 18 4 0". It leaves out the limits in but,
// and that of descriptors, which the Go runtime restores itself.
func State(but []int) string {
	Capture()
	s := fmt.Sprintf("umask %d", umask)
	for i, now := range softLimits() {
		if now != limits[i] && i != unix.RLIMIT_NOFILE && !slices.Contains(but, i) {
			s += fmt.Sprintf(" %d %d", i, limits[i])
		}
	}
	return s
}

// Restore sets a state, as far as the hard limits of now allow it.
func Restore(state string) {
	f := strings.Fields(state)
	for ; len(f) >= 2; f = f[2:] {
		value, err := strconv.ParseUint(f[1], 10, 64)
		if err != nil {
			return
		}
		if f[0] == "umask" {
			unix.Umask(int(value))
			continue
		}
		i, err := strconv.Atoi(f[0])
		var l unix.Rlimit
		if err != nil || unix.Prlimit(0, i, nil, &l) != nil {
			continue
		}
		l.Cur = min(value, l.Max)
		_ = unix.Prlimit(0, i, &l, nil) // to lower, or to raise up to the hard limit, takes no rights
	}
}
