package stacks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/pprof"
	"sync"
	"time"
)

// MaxProfile bounds a profile of one process, in bytes. A compressed one is some 100 KiB.
const MaxProfile = 4 << 20

// CPUProfile is the name of the profile that takes time.
const CPUProfile = "profile"

// MaxProfileTime bounds the time of a CPU profile.
const MaxProfileTime = 5 * time.Minute

// The errors of Profile.
var (
	ErrNoProfile = errors.New("no such profile")
	ErrBusy      = errors.New("another profile of this process is being taken")
)

// profiling is held while a profile is taken.
var profiling sync.Mutex

// Profile takes a profile of this process, by its name in runtime/pprof, or a CPU profile that
// lasts d or until ctx ends. debug is that of pprof.Profile.WriteTo. One is taken at a time.
func Profile(ctx context.Context, name string, debug int, d time.Duration) ([]byte, error) {
	if !profiling.TryLock() {
		return nil, ErrBusy
	}
	defer profiling.Unlock()
	var b bytes.Buffer
	if name == CPUProfile {
		if err := pprof.StartCPUProfile(&b); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBusy, err)
		}
		timer := time.NewTimer(min(d, MaxProfileTime))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		pprof.StopCPUProfile()
	} else {
		p := pprof.Lookup(name)
		if p == nil {
			return nil, fmt.Errorf("%w: %q", ErrNoProfile, name)
		}
		if err := p.WriteTo(&b, debug); err != nil {
			return nil, err
		}
	}
	if b.Len() > MaxProfile {
		return nil, fmt.Errorf("the profile has %d bytes, at most %d", b.Len(), MaxProfile)
	}
	return b.Bytes(), nil
}
