//go:build !race

package fdipc

const raceEnabled = false
