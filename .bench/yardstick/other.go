//go:build !linux

package main

import (
	"flag"

	"github.com/coppice-go/coppice/fdipc"
)

func child() bool { return false }

func removeBuilt() {}

func pinSelf() error { return fdipc.ErrUnsupported }

func handleRows() []row    { return nil }
func messageRows() []row   { return nil }
func roundtripRows() []row { return nil }
func actorRows() []row     { return nil }
func acceptRows() []row    { return nil }
func httpRows() []row      { return nil }
func respawnRows() []row   { return nil }
func callRows() []row      { return nil }
func tracingRows() []row   { return nil }
func startRows() []row     { return nil }
func growthRows() []row    { return nil }

func acceptFlags(*flag.FlagSet)  {}
func httpFlags(*flag.FlagSet)    {}
func respawnFlags(*flag.FlagSet) {}
func callFlags(*flag.FlagSet)    {}
func tracingFlags(*flag.FlagSet) {}

func serveAccept()  {}
func serveHTTP()    {}
func serveRespawn() {}
func serveCalls()   {}
func serveTracing() {}
func serveGrowth()  {}
