// Package child is the child's side of the tree: the code that a worker and the listener process
// run, as a separate process or as a goroutine of the master. The master's side is in package
// runtime; the two sides exchange the frames of package childproto.
package child
