//go:build !linux

package supervisor

import "time"

// monotonic returns the wall clock's time: there is no replacement in place here.
func monotonic() time.Duration { return time.Duration(time.Now().UnixNano()) }
