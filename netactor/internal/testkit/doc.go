// Package testkit has the helpers that the tests of netactor and its packages share.
package testkit
