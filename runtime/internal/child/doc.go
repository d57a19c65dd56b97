// Package child is the child's side of the tree: what a worker and the listener process do in a
// process of their own, or as a goroutine of the master. The master's side is in the root package;
// both speak by the frames of package childproto.
package child
