package coppice

import (
	"os"
	"time"
)

// GraceVar sets the grace of strangers in a process of the tests.
const GraceVar = "COPPICE_TEST_GRACE"

func init() {
	if d, err := time.ParseDuration(os.Getenv(GraceVar)); err == nil {
		strangersGrace = d
	}
}

// Deafen fills the queue of what the master has to say to a child that does not read.
func (rt *Runtime) Deafen(name string) {
	for _, p := range rt.hub.all() {
		if p.name() == name {
			for p.conn.TrySend(control(frameWarm, struct{}{})) == nil { // means nothing to who has its place
			}
		}
	}
}
