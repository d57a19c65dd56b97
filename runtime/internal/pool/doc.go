// Package pool decides the life of a pool's workers: which worker starts, which replaces
// another, which drains and which ends. It is a pure state machine: [State.Step] takes what
// happened and returns what is to be done. It has no goroutine, no clock and no process;
// package coppice drives it.
//
// # Its place
//
// Restarts are not decided here. A pool's supervisor has one child for each slot, by all of
// OTP's rules. This package adds what happens inside a slot, which the supervisor does not
// see: another worker, which is ready already, replaces the slot's worker, and the old one
// drains outside the slot. The slot ends only when its current worker ends.
//
//	supervisor ── Start ──▶ slot ◀─ Swap ─ the next worker, when it is ready
//	           ◀── Down ───  │
//	                         └─ Drain ──▶ the one before
//
// # What holds
//
//   - From its launch to its end a worker is exactly one of: on its way to a slot, a slot's
//     worker, a spare, or draining.
//   - By a decision of this package no more than Config.Unavailable slots are without a
//     ready worker.
//   - There are at most as many workers as slots, Surge and Spares together; those that
//     drain are not counted.
//   - A roll ends with every slot of the new generation, or as many as its share, or every slot
//     of the old one. A slot whose way back fails keeps its worker until one of the old
//     generation is ready.
//   - At most Config.Draining workers drain. Beyond that the one that began first is forced to end.
//   - After Stop nothing is launched. Gone comes when the last worker has ended.
package pool
