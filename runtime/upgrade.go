package coppice

import (
	"context"
	"fmt"
)

// An UpgradeError is why an upgrade did not happen, or was taken back. The old program serves on.
type UpgradeError struct {
	Step string // check, wait, suspend, exec, trial, roll
	Err  error
}

// Error returns one line.
func (e *UpgradeError) Error() string {
	return fmt.Sprintf("coppice: upgrade: %s: %s", e.Step, withoutPrefix(e.Err))
}

// Unwrap returns Err.
func (e *UpgradeError) Unwrap() error { return e.Err }

// Upgrade replaces the whole program by the one that is now at the path by which it was started:
// this process, the master, too, which a [Runtime.Reload] leaves as it is. Its PID stays, its
// children stay its children and work on, its listening sockets stay open, and no connection is
// refused or cut. The steps:
//
//   - check: the new program is started beside this one. It reads what this master is, compares
//     that with its own specs, and says whether it can take over. If not, or if it crashes or
//     hangs, Upgrade returns its reason and nothing has happened.
//   - wait: until nothing is under way: no child starts or stops, no worker drains. One that waits
//     for its restart does so on in the new program.
//   - suspend: Funcs are stopped within their Shutdown time, and may leave a state ([HandOver]).
//     The master stops between two messages; what its children say from now on waits in the kernel.
//   - exec: the state of the master goes into a file in memory, and the new program is executed in
//     this process (execve(2)). What runs in the master ends here.
//   - trial: the new program comes to its Start, which takes the children over in place of starting
//     others. Funcs and Actors are started. If that fails, or a Func ends that is to go on, the old
//     program is executed again, and takes its children back.
//   - roll: the new master reads what the children have said, stops those that the new program does
//     not have any more, starts those that only it has, and reloads the tree: every worker, and
//     last the listener process. If that fails, or a Func or a new child ends before it is over,
//     the old program is executed again.
//
// So Upgrade returns an error, an [UpgradeError], or does not return. What came of the later steps
// is in the log and in the tree's events.
//
// Between execve and the first instructions of the new program SIGHUP, SIGINT, SIGUSR1 and SIGUSR2
// are dropped, and SIGTERM ends the tree (the kernel's default; signal(7)), as the crash of the new
// program before the end of its trial does. The check is there to find such a program. Later
// signals wait until the tree is up.
//
// Upgrade needs workers that are processes, a tree whose Start was called by the main goroutine,
// and one without children that were added at run time. It waits for a reload under way. The end of
// ctx ends the upgrade until the exec.
func (rt *Runtime) Upgrade(ctx context.Context) error { return rt.upgrade(ctx) }

// CheckUpgrade does the check of [Runtime.Upgrade] alone. It returns what an upgrade would change
// in the tree, in words: one line for each child that is more than kept, and for each value.
func (rt *Runtime) CheckUpgrade(ctx context.Context) (plan []string, err error) {
	return rt.checkUpgrade(ctx)
}
