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
