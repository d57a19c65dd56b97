// Runtime is a tree, and imports nothing else.
package main

import "github.com/coppice-go/coppice/bench/yardstick/starts/tree"

func main() { tree.Main() }
