// Package registry is the part of netactor that runs in the master: it opens every listening socket
// of the tree, shares it, and closes it when it has no owner any more.
package registry
