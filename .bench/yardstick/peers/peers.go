// Package peers holds programs that do what the yardstick's rows do with nothing in between: c/*.c
// with system calls alone, and the same in plain Go; node/*.js what Node's cluster module and its
// worker threads do; python/*.py what Python's multiprocessing does.
package peers

import _ "embed"

// C is the source of the program in C for handles, messages and round trips.
//
//go:embed c/peer.c
var C []byte

// AcceptC is the source of the server in C.
//
//go:embed c/accept.c
var AcceptC []byte

// AcceptNode is the source of the server in Node, a cluster.
//
//go:embed node/accept.js
var AcceptNode []byte

// RespawnNode is the source of a cluster of Node's in which workers are replaced.
//
//go:embed node/respawn.js
var RespawnNode []byte

// CallsNode is the source of a pool of Node's worker threads.
//
//go:embed node/calls.js
var CallsNode []byte

// CallsPython is the source of a program with a multiprocessing.Pool.
//
//go:embed python/calls.py
var CallsPython []byte
