// Package liveness watches whether a child answers its heartbeat, and decides when it hangs. It
// asks, counts and judges; what is done about a child that hangs is its caller's.
package liveness
