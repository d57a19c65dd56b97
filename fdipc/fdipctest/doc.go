// Package fdipctest tests what uses fdipc, and fdipc itself.
//
// A [Link] joins two Conns in memory and interferes at named points: it cuts the link as
// a death would, holds packets back, loses descriptors, refuses packets, and writes bytes no good peer
// would. [TestConn] is the conformance suite that every kind of link passes. [Leaks] counts
// descriptors and goroutines. [Wait] bounds the waiting of tests without sleeping.
package fdipctest
