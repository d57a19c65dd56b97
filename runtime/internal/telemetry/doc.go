// Package telemetry turns what happens in a process of the tree into spans and metrics.
package telemetry
