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
//   - The program can be replaced by its next image, in this process, while its children go on:
//     see below.
//
// # Exec in place
//
// The old image suspends starts ([Suspend]), then each [Process], each [Lines] and each
// [Executable]. It puts their states, and the numbers of their descriptors, into a file in memory,
// and calls [Suspension.Exec]. If that returns, it has failed: the Resumes set all going again, and
// nothing is lost, but signals that came in that moment and the rest of a CPU profile.
//
// The next image calls [PrepareExec] on its main goroutine, takes what was left to it from package
// image, and calls [Restore], [RestoreLines] and [RestoreExecutable]. Nothing is waited for and
// nothing is read until the Resumes, so it can still exec the old image with the same state and the
// same descriptors. Then
//
//   - a child goes on, and gets no parent-death signal; one that has ended meanwhile is reaped with
//     its status, by its pidfd;
//   - each byte of an output comes once, and lines are cut nowhere. A process that prints more than
//     a pipe holds (64 KiB) waits meanwhile;
//   - [StartReaper] reaps what the old image had started by other means.
//
// Not in the states: what [LastWords] and [OOMWatch] have seen. The last words of a process that
// prints them before the exec and ends after it are in its output alone, and that the kernel killed
// it for memory in the gap is not seen.
//
// The caller owns each [Process]: it waits for its Done, ends the rest of its group, and closes it.
package process
