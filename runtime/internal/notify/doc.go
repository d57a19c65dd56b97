// Package notify is the receiving side of sd_notify(3): a socket on which a
// program says that it is ready, what it does, and that it needs more time.
//
// The socket has a unique name in the abstract namespace, and the name ends with the socket: no
// file is left behind, and no directory must be writable for the program's user. Every process in
// the network namespace can send to it, so a message counts only if its sender belongs to the
// program; the kernel identifies the sender (SO_PASSCRED).
package notify
