// Package liveness watches whether a child answers its heartbeat, and decides when it hangs. It
// asks, counts and judges; its caller decides what happens to a child that hangs.
package liveness
