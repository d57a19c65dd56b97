package hosts

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/actors/hosts/internal/lease"
)

// boottime returns the time of CLOCK_BOOTTIME, which goes on while the system is suspended, as that
// of the engine's hosts does. Go's monotonic clock (CLOCK_MONOTONIC) stands still.
func boottime() lease.Time {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // cannot fail
	return lease.Time(ts.Nano())
}

// A bootAlarm is a timer of CLOCK_BOOTTIME: timerfd_create(2).
type bootAlarm struct {
	file *os.File
	fd   int
	done chan struct{}
}

// newBootAlarm returns a timer that calls ring, on a goroutine of its own, each time its time has
// come. stop ends it.
func newBootAlarm(ring func()) (alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("hosts: %w", os.NewSyscallError("timerfd_create", err))
	}
	a := &bootAlarm{file: os.NewFile(uintptr(fd), "timerfd"), fd: fd, done: make(chan struct{})}
	go func() { // ends when stop closes the file
		defer close(a.done)
		var count [8]byte
		for {
			if _, err := a.file.Read(count[:]); err != nil {
				return
			}
			ring()
		}
	}()
	return a, nil
}

func (a *bootAlarm) set(at lease.Time) {
	// An absolute time that is over rings at once; 0 disarms.
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(1, int64(at)))}
	if at == 0 {
		spec = unix.ItimerSpec{}
	}
	if err := unix.TimerfdSettime(a.fd, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
		panic(fmt.Sprintf("hosts: timerfd_settime: %v", err)) // only for a bad argument
	}
}

func (a *bootAlarm) stop() {
	_ = a.file.Close()
	<-a.done
}
