// Package hoststest is the kit for tests of several hosts in one process.
//
// A [Net] is a network between hosts, with faults: hosts that cannot reach each other, in one
// direction or both, connections that are slow, that break after so many bytes, or hand over a few
// bytes at a time. A [Memory] is an engine in memory, whose calls are lost, late, or done after
// their caller has gone. Both work in a bubble of testing/synctest. [EngineChecks] are what every
// engine has to pass.
package hoststest
