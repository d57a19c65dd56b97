// Package faults handles operations that fail for a while, for the programs of netactor: such an
// operation is tried again later, and is logged once when it begins to fail and once when it works
// again, so that it does not flood the log.
package faults
