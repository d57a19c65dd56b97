// Package readiness waits until a program that the master has started is ready, by the sign that
// its spec names: a message on its NOTIFY_SOCKET, a port, a line of output, or some time of life.
package readiness
