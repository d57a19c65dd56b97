// Package tracing names the spans of Coppice and carries their context across processes.
package tracing
