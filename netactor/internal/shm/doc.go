// Package shm has the page of counters that a worker shares with the listener process, and the
// clock that both use.
package shm
