// Package safepath opens files and directories by paths that users with fewer rights may change.
package safepath
