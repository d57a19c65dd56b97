// Package listen is the part of netactor that runs in a worker: it asks the master for listeners,
// takes the connections that the listener process offers, and counts the open connections.
package listen
