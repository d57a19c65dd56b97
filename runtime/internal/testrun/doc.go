// Package testrun makes the children of a tree that a test started run that test alone.
//
// A child of a tree is the program started again, and finds its part of the tree in the call of
// Start that it comes to. In a test binary that call stands in a test, so the child must run the
// test, as far as that call, and no other test: the tests before it have run already. The flags of
// package testing can do that. They are also set so that the child leaves the files of the test run
// alone and may exit within the test.
package testrun
