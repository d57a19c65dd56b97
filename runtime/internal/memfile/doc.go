// Package memfile makes files in memory that many processes read.
package memfile
