// Package process is the mechanism of OS processes on Linux: to start one, to
// hear what it prints, to signal it and those it started, and to learn how it
// ended. It knows nothing of trees, specs or frames; what a child is for, when it
// is stopped and what its end means is decided above.
//
// # What holds
//
//   - Every process is forked by one thread that never ends, so that the
//     parent-death signal means the death of the program ([Start]).
//   - A process is known by its pidfd. No signal of ours meets a process that got
//     its number later ([Process.SignalGroup]).
//   - Only processes that were started here are reaped, each by its pidfd: an
//     exec.Cmd elsewhere in the program keeps its own ([Process.Done]).
//   - A process has the descriptors of [Command.Files] and no other, the default
//     signal dispositions, and an empty signal mask.
//
// The caller owns each [Process]: it waits for its Done, sees to what is left of
// its group, and closes it.
package process
