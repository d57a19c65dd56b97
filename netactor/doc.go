// Package netactor opens, shares and hands over listeners and connections.
package netactor
