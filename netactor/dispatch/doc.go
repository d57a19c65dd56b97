// Package dispatch is the part of netactor that runs in the listener process: it accepts
// connections, chooses a worker for each, and offers it.
package dispatch
