// Package registry is the part of netactor that runs in the master: it opens every listening socket
// of the tree, shares them, and closes them when they have no owner any more.
package registry
