// Package wire has the protocol of netactor's processes: kinds of frame and payloads.
package wire
