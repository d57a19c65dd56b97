// Package telemetry makes spans and metrics of the events in a process of the tree.
package telemetry
