package examplestest

import (
	"fmt"
	"math/rand/v2"
)

// Addr returns an address for a program that does not print what it got for port 0. No other
// program has it, nor gets the port by chance.
func Addr() string {
	return fmt.Sprintf("127.%d.%d.%d:%d", rand.N(256), rand.N(256), 2+rand.N(253), 20000+rand.N(10000))
}
