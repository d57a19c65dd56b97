//go:build !linux

package main

import "log"

func launch() {
	log.Fatal("all hosts at once: on Linux; here each has -host, in a terminal of its own")
}
