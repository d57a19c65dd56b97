// Package inflight has the table of the requests that a worker is serving, in memory that it shares
// with its master: when the worker is killed, the master reads there what it was serving. Both find
// in it which requests are over their deadlines.
package inflight
