package testrun

import (
	"bytes"
	"context"
	"flag"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// A Test is the test, benchmark, example or fuzz test that started a tree. The zero Test is none:
// the program is no test binary, or runs something else than its tests.
type Test struct {
	Name    string // as t.Name gives it; "" = it could not be found out
	running bool
}

// Running reports whether there is a test at all.
func (t Test) Running() bool { return t.running }

type nameKey struct{}

// WithName returns a context that carries the name of a test to [Find].
func WithName(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, nameKey{}, name)
}

// Find returns the test that runs on this goroutine. Its name is the one in ctx, otherwise that of
// the function that package testing called. The name of a subtest is in no function's name.
func Find(ctx context.Context) Test {
	if flag.Lookup("test.paniconexit0") == nil { // every test binary has the flag
		return Test{}
	}
	if name, ok := ctx.Value(nameKey{}).(string); ok {
		return Test{name, true}
	}
	pcs := make([]uintptr, 1024)
	frames, inner := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)]), ""
	for {
		f, more := frames.Next()
		switch f.Function {
		case "testing.tRunner", "testing.fRunner", "testing.(*B).runN", "testing.runExample":
			return Test{topLevel(inner), true}
		case "main.main": // TestMain, which runs no tests now
			return Test{}
		}
		inner = f.Function
		if !more {
			return Test{running: testsRun()} // another goroutine, perhaps of a test
		}
	}
}

// topLevel returns the name of the test whose function is called function; "" if the function is
// not that of a test which go test itself calls.
func topLevel(function string) string {
	_, name, _ := strings.Cut(function[strings.LastIndexByte(function, '/')+1:], ".")
	for _, prefix := range []string{"Test", "Benchmark", "Example", "Fuzz"} {
		if strings.HasPrefix(name, prefix) && !strings.ContainsAny(name, ".[(") {
			return name
		}
	}
	return ""
}

// testsRun reports whether package testing runs tests now.
func testsRun() bool {
	stacks := make([]byte, 1<<20)
	return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("\ntesting.(*M).Run("))
}

// Args returns args, the arguments of this program, with the flags by which a child runs t alone.
// If t has no name, the child runs no test.
func (t Test) Args(args []string) []string {
	if !t.running {
		return args
	}
	at := flagsEnd(args)
	return slices.Insert(slices.Clone(args), at, t.flags()...)
}

// flagsEnd returns the index in args at which package flag ends to look for the flags that this
// program has.
func flagsEnd(args []string) int {
	for i := 1; i < len(args); i++ {
		name, isFlag := strings.CutPrefix(args[i], "-")
		name = strings.TrimPrefix(name, "-")
		name, _, value := strings.Cut(name, "=")
		f := flag.Lookup(name)
		if !isFlag || f == nil { // also "-" and "--"
			return i
		}
		if b, ok := f.Value.(interface{ IsBoolFlag() bool }); !value && (!ok || !b.IsBoolFlag()) {
			i++ // its value
		}
	}
	return len(args)
}

func (t Test) flags() []string {
	run, bench := pattern(t.Name), ""
	if strings.HasPrefix(t.Name, "Benchmark") {
		run, bench = "^$", run
	}
	flags := []string{
		"-test.run=" + run, "-test.bench=" + bench, "-test.benchtime=1x", "-test.fuzz=", "-test.skip=", "-test.list=",
		"-test.count=1", "-test.cpu=", "-test.shuffle=off",
		"-test.timeout=0",          // the master's ends both
		"-test.v=false",            // its lines are for go test
		"-test.paniconexit0=false", // a child exits where it calls Start
		"-test.testlogfile=",       // this and the following are written by the master
		"-test.coverprofile=", "-test.trace=", "-test.cpuprofile=", "-test.memprofile=", "-test.blockprofile=", "-test.mutexprofile=",
	}
	return slices.DeleteFunc(flags, func(s string) bool { // of another release of Go
		name, _, _ := strings.Cut(s[1:], "=")
		return flag.Lookup(name) == nil
	})
}

// pattern returns the value of -test.run that matches the test called name and no other.
func pattern(name string) string {
	if name == "" {
		return "^$"
	}
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
}
