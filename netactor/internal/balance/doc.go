// Package balance holds the rules of netactor/dispatch: which worker is offered a connection, and what
// becomes of it. It has no goroutines, clocks, sockets or locks.
package balance
