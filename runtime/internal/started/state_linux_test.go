package started

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// TestState: what has changed since the start is restored, no limit above the hard limit of now.
func TestState(t *testing.T) {
	if got, want := State(nil), fmt.Sprintf("umask %d", umask); got != want {
		t.Fatalf("nothing has changed: %q, want %q", got, want)
	}
	limit := func(resource int, set *unix.Rlimit) (l unix.Rlimit) {
		t.Helper()
		if err := unix.Prlimit(0, resource, set, &l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	was := limit(unix.RLIMIT_STACK, nil)
	defer limit(unix.RLIMIT_STACK, &was)
	defer unix.Umask(unix.Umask(0o777))
	limit(unix.RLIMIT_STACK, &unix.Rlimit{Cur: 1 << 20, Max: was.Max})
	if got, want := State([]int{unix.RLIMIT_STACK}), fmt.Sprintf("umask %d", umask); got != want {
		t.Errorf("without the stack's limit: %q, want %q", got, want)
	}
	Restore(State(nil))
	if got := limit(unix.RLIMIT_STACK, nil); got != was {
		t.Errorf("the stack's limit is %v, want %v", got, was)
	}
	if got := currentUmask(); got != umask {
		t.Errorf("the umask is %o, want %o", got, umask)
	}
	hard := limit(unix.RLIMIT_CORE, nil).Max
	for _, state := range []string{fmt.Sprintf("%d %d", unix.RLIMIT_CORE, hard), fmt.Sprintf("%d %d", unix.RLIMIT_CORE, uint64(unix.RLIM_INFINITY)), "", "umask", "umask x", "x 1", "99 1"} {
		Restore(state)
		if got := limit(unix.RLIMIT_CORE, nil); got.Max != hard {
			t.Errorf("%q: the hard limit is %d, want %d", state, got.Max, hard)
		}
	}
}
