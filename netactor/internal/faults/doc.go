// Package faults is how the programs of netactor live with what fails for a while: it is logged once
// when it begins and once when it ends, tried again later, and does not flood the log.
package faults
