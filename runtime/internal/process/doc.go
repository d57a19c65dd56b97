// Package process starts OS processes on Linux, reads their output, signals them and their
// descendants, and returns how they ended. It does not know trees, specs or frames; its callers
// decide what a child is for, when it is stopped and what its end means.
//
// # Guarantees
//
//   - Every process is forked by one thread that never ends, so that the parent-death signal means
//     the death of the program ([Start]).
//   - A process is identified by its pidfd. No signal of ours reaches a process that got its number
//     later ([Process.SignalGroup]).
//   - Only processes that this package started are reaped, each by its pidfd: an exec.Cmd elsewhere
//     in the program still reaps its process ([Process.Done]). [Reaper] reaps orphans.
//   - A process has the descriptors of [Command.Files] and no other, the default
//     signal dispositions, and an empty signal mask.
//
// The caller owns each [Process]: it waits for its Done, ends the rest of its group, and closes it.
package process
