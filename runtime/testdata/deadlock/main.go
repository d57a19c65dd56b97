// Deadlock is a program in which nobody can go on. It must be built without cgo:
// with it Go's runtime does not notice.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Println("standard output of deadlock")
	fmt.Fprintln(os.Stderr, "standard error of deadlock")
	select {}
}
