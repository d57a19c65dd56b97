// Package wire is what the programs of netactor say to each other: kinds of frame and payloads.
package wire
