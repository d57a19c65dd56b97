// Package pool decides the life of a pool's workers: who is started, who takes
// whose place, who drains, who goes. It is a pure state machine: [State.Step] takes
// what happened and returns what is to be done. It has no goroutine, no clock, and
// no process; package coppice drives it.
//
// # Its place
//
// Restarts are not decided here. A pool's supervisor has one child for each slot,
// and all of OTP's rules hold for these. What this package adds happens inside a
// slot, where the supervisor does not look: a slot's worker is replaced by another
// that is ready already, and the one before drains outside. Only the end of the
// worker that a slot has at that moment is the slot's end.
//
//	supervisor ── Start ──▶ slot ◀─ Swap ─ the next worker, when it is ready
//	           ◀── Down ───  │
//	                         └─ Drain ──▶ the one before
//
// # What holds
//
//   - Every worker that was launched is, until it has ended, exactly one of: on its
//     way to a slot, a slot's worker, a spare, or draining.
//   - By this package's own doing no more than Config.Unavailable slots are without
//     a ready worker.
//   - There are at most as many workers as slots, Surge and Spares together, those
//     that drain not counted.
//   - A roll ends: each slot of its new generation, or each of the one before; a
//     slot whose way back fails keeps the worker that it has until that ends.
//   - At most Config.Draining workers drain; the one that began first is cut.
//   - After Stop nothing is launched, and Gone comes when the last worker has ended.
package pool
