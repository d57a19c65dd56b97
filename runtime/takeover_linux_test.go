package coppice

import (
	"errors"
	"os"
	"testing"

	"github.com/coppice-go/coppice/runtime/internal/handover"
	"golang.org/x/sys/unix"
)

// TestTakeDuplicates: a part that closes its descriptors, as one that cannot be restored does,
// leaves those that the state names to the way back; and after the trial there is nothing to take.
func TestTakeDuplicates(t *testing.T) {
	state, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0) // the end of the trial closes it
	if err != nil {
		t.Fatal(err)
	}
	in := &inheritance{file: state, fds: []int{fd}, ended: make(chan struct{})}
	in.state.Workers, in.state.Idle = []handover.FormerWorker{{Pool: "web"}}, []string{"web/1"}
	for range 2 {
		files, err := in.files([]int{0})
		if err != nil || len(files) != 1 || files[0].Close() != nil {
			t.Fatalf("%v, %v", files, err)
		}
		if err := unix.Fstat(fd, new(unix.Stat_t)); err != nil {
			t.Error(err)
		}
	}
	if err := in.confirm(); err != nil {
		t.Error(err)
	}
	if _, _, err := in.take(handover.Part{Files: []int{0}}); err == nil {
		t.Error("taken after the trial")
	}
	if w := in.worker("web", 0); w != nil {
		t.Errorf("took %v after the trial", w)
	}
	if err := in.idle("web/1"); err != nil {
		t.Errorf("a child that was stopped before the upgrade cannot be started after it: %v", err)
	}
}

// TestSizesOfIdle: a slot whose worker has ended for good is a slot.
func TestSizesOfIdle(t *testing.T) {
	in := &inheritance{}
	in.state.Idle = []string{"web/2", "web/x", "db/3"}
	in.state.Workers = []handover.FormerWorker{{Pool: "web"}}
	if got := in.sizes(); got["web"] != 3 || len(got) != 1 {
		t.Errorf("sizes %v", got)
	}
}

// TestGoBackOnce: a descriptor that the way back has made a file of is closed by that alone, also
// if it leads nowhere: its number may be another's by then.
func TestGoBackOnce(t *testing.T) {
	state, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(t.TempDir(), unix.O_RDONLY|unix.O_CLOEXEC, 0) // a directory is no program
	if err != nil {
		t.Fatal(err)
	}
	in := &inheritance{file: state, fds: []int{fd}, ended: make(chan struct{})}
	in.state.Self.Files = []int{0}
	if err := in.goBack(errors.New("the trial failed")); err == nil {
		t.Fatal("a directory was executed")
	}
	if in.fds[0] == fd {
		t.Error("the end of the trial would close it once more")
	}
	if err := in.confirm(); err != nil {
		t.Error(err)
	}
}
