// Package coppice runs a service as a supervised tree of processes.
package coppice
