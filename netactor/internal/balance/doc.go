// Package balance holds the rules of netactor/dispatch: which worker is offered a connection, and
// what happens to the connection. It has no goroutines, clocks, sockets or locks.
package balance
