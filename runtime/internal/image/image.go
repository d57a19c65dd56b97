// Package image is what this image of the program got from the image before it in the same process,
// which has replaced itself by execve(2): a state, descriptors, and the signals that have come
// since. Its init, in such an image, restores the name of the process and begins to catch signals.
package image

import (
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/mark"
)

// Replaced reports whether an image of the program was before this one in this process.
func Replaced() bool { return mark.Got != nil }

// Began is when this image began to run.
var Began = time.Now()

// At returns when the exec began, as the time since the machine was started (CLOCK_MONOTONIC).
func At() time.Duration { return time.Duration(mark.Got.At) }

// caught has a channel for each signal that is caught from init on. Each has room for one: more of
// them mean the same.
var caught struct {
	sync.Mutex
	by map[os.Signal]chan os.Signal
}

// TakeSignals returns the signals that have come since this image began and stops to catch them.
// Ask for them by signal.Notify before: then one that comes in between is delivered there, or
// twice, and not lost.
func TakeSignals() (came []os.Signal) {
	caught.Lock()
	defer caught.Unlock()
	for sig, ch := range caught.by {
		signal.Stop(ch)
		endUnasked(sig)
		if len(ch) > 0 {
			came = append(came, sig)
		}
	}
	caught.by = nil
	return came
}
