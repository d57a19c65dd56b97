// Otlp is a tree, with what exports its traces by HTTP.
package main

import (
	"github.com/coppice-go/coppice/bench/yardstick/starts/tree"
	_ "github.com/coppice-go/coppice/tracing/otlp"
)

func main() { tree.Main() }
