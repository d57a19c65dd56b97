// Package handover is what one image of the master leaves to the next when the program is replaced
// in place: plain data and descriptors, which outlive execve(2).
//
// The data is CBOR. A release reads the state of its own format and of older ones. Fields that a
// reader does not know are ignored, unless the writer demands a reader that knows them: Reads is
// the oldest format whose reader may read the state. So the zero value of every field must mean
// what was before the field existed. A moment is the time of CLOCK_MONOTONIC, which goes on over an
// exec, or a wall clock's where the meaning is one.
package handover
