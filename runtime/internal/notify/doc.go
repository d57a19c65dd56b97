// Package notify is the receiving side of sd_notify(3): a socket on which a
// program says that it is ready, what it does, and that it needs more time.
//
// The socket has a name of its own in the abstract namespace, which ends with it:
// no file is left behind, and no directory must be writable for the program's
// user. Everybody in the network namespace can send to it, so a message counts
// only when its sender, known by the kernel's word (SO_PASSCRED), belongs to the
// program.
package notify
