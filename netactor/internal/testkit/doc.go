// Package testkit has what the tests of netactor and its rooms share.
package testkit
