// Package fdipc carries frames and open descriptors between two processes.
package fdipc
