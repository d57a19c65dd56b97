package stacks

import (
	"strings"
	"testing"
)

// TestOfMain: of the stacks of a program the first goroutine is shown, from the call of the
// standard library that it is in to the worker function.
func TestOfMain(t *testing.T) {
	const dump = `SIGABRT: abort
PC=0x491641 m=0 sigcode=0

goroutine 7 gp=0x2 m=nil [select]:
main.other()
	/src/main.go:1 +0x1

goroutine 1 gp=0x9f8b96ae1e0 m=nil [IO wait]:
runtime.gopark(0x7fb625841a00?, {0xb, 0x1})
	/go/src/runtime/proc.go:402 +0xce fp=0x1 sp=0x2 pc=0x3
internal/poll.(*FD).Accept(0x29d19ec9f500)
	/go/src/internal/poll/fd_unix.go:611 +0x1
net/http.ListenAndServe(...)
	/go/src/net/http/server.go:3500
example.com/shop/web.(*Server).run(0x1, {0xb82080, 0x2ba0bae70aa0}, 0x2ba0bae89500?)
	/src/web/server.go:20 +0x2a8 fp=0x5 sp=0x6 pc=0x7
main.main.func1({0xb82080?, 0x2ba0bae70aa0?})
	/src/main.go:70 +0x45
github.com/coppice-go/coppice/runtime.Pool.program.func1({0xb7b7c0?, 0x1c7f56b1a1e0?})
	/coppice/runtime/child.go:28 +0x29
main.main()
	/src/main.go:60 +0x45

goroutine 2 [sleep]:
`
	want := `goroutine 1 [IO wait]:
net/http.ListenAndServe(...)
example.com/shop/web.(*Server).run(...)
	/src/web/server.go:20
main.main.func1(...)
	/src/main.go:70`
	if got := strings.Join(OfMain(dump), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, none := range []string{"", "goroutine 12 [select]:\nmain.f()\n", "killed"} {
		if got := OfMain(none); got != nil {
			t.Errorf("%q: %q", none, got)
		}
	}
}

func FuzzOfMain(f *testing.F) {
	f.Add("goroutine 1 [running]:\nmain.main()\n\t/main.go:3 +0x1\n")
	f.Fuzz(func(t *testing.T, dump string) {
		if n := len(OfMain(dump)); n > 2*maxFrames+3 {
			t.Errorf("%d lines", n)
		}
	})
}
