// Package control is the way of an operator into a running tree: a Unix socket that only the tree's
// user and root may use, an HTTP server on it that no client can make dear, and the checks that a
// handler needs which a browser can reach. What is served is package runtime's.
//
// Nothing here can hold up or fail the tree: a socket that cannot be made, a client that does not
// read and one that floods cost a line of the log at most.
package control
