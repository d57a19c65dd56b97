package process

import (
	"strings"
	"testing"
	"time"
)

// TestLastWords: the output of dying programs, and the line that is taken as the reason. The texts
// are real output.
func TestLastWords(t *testing.T) {
	for _, tt := range []struct{ name, printed, want string }{
		{"nothing", "listening\nserved 3 requests\n", ""},
		{"go panic", "starting\npanic: boom\n\ngoroutine 1 [running]:\nmain.main()\n\t/tmp/x.go:4 +0x25\nexit status 2\n", "panic: boom"},
		{
			"go panic again", "panic: first [recovered]\n\tpanic: second\n\ngoroutine 1 [running]:\n",
			"panic: first [recovered]",
		},
		{
			"go nil pointer", "panic: runtime error: invalid memory address or nil pointer dereference\n" +
				"[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x47f1ae]\n\ngoroutine 1 [running]:\n",
			"panic: runtime error: invalid memory address or nil pointer dereference [signal SIGSEGV: segmentation violation]",
		},
		{
			"go fault", "unexpected fault address 0x7f0d3c5f1000\nfatal error: fault\n" +
				"[signal SIGSEGV: segmentation violation code=0x2 addr=0x7f0d3c5f1000 pc=0x47f2c1]\n\ngoroutine 1 gp=0xc0 m=0:\n",
			"fatal error: fault [signal SIGSEGV: segmentation violation]",
		},
		{
			"go stack overflow", "runtime: goroutine stack exceeds 1000000000-byte limit\nruntime: sp=0xc0201603a0 stack=[0xc020160000, 0xc040160000]\n" +
				"fatal error: stack overflow\n\nruntime stack:\n", "fatal error: stack overflow",
		},
		{"go deadlock", "fatal error: all goroutines are asleep - deadlock!\n\ngoroutine 1 [select (no cases)]:\n", "fatal error: all goroutines are asleep - deadlock!"},
		{"go signal", "SIGABRT: abort\nPC=0x46f7c3 m=0 sigcode=0\n\ngoroutine 0 gp=0x5557 m=0:\n", "SIGABRT: abort"},
		{
			"python", "Traceback (most recent call last):\n  File \"<string>\", line 1, in <module>\n    int('x')\n    ~~~^^^^^\n" +
				"ValueError: invalid literal for int() with base 10: 'x'\n", "ValueError: invalid literal for int() with base 10: 'x'",
		},
		{"rust", "\nthread 'main' panicked at src/main.rs:2:5:\nboom\nnote: run with `RUST_BACKTRACE=1`\n", "thread 'main' panicked at src/main.rs:2:5: boom"},
		{"c++", "terminate called after throwing an instance of 'std::runtime_error'\n  what():  boom\n", "terminate called after throwing an instance of 'std::runtime_error': boom"},
		{"glibc", "*** stack smashing detected ***: terminated\n", "*** stack smashing detected ***: terminated"},
		{"heap", "free(): double free detected in tcache 2\n", "free(): double free detected in tcache 2"},
		{"assert", "a.out: a.c:3: main: Assertion `x == 1' failed.\n", "a.out: a.c:3: main: Assertion `x == 1' failed."},
		{"asan", "=================\n==9==ERROR: AddressSanitizer: heap-use-after-free on address 0x1\n", "==9==ERROR: AddressSanitizer: heap-use-after-free on address 0x1"},
		{"the newest", "panic: one\nrecovered and logged\npanic: two\n", "panic: two"},
		{"a long one", "panic: " + strings.Repeat("é", 1000), "panic: " + strings.Repeat("é", 246) + "…"},
		{"a headline", "SIGNAL: \nSIGnal: 3\nINFO panic: no\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var w LastWords
			now := time.Unix(0, 0)
			for line := range strings.Lines(tt.printed) {
				w.Note(now, []byte(strings.TrimSuffix(line, "\n")))
			}
			said := w.Said(now)
			line, dump := said.Line, said.Dump
			if line != tt.want || said.Cut != 0 {
				t.Errorf("words %+v, want %q", said, tt.want)
			}
			if (dump == "") != (line == "") || dump != "" && !strings.HasSuffix(tt.printed, dump[:len(dump)-1]) && !strings.HasSuffix(tt.printed, dump) {
				t.Errorf("dump %q", dump)
			}
		})
	}
}

// TestLastWordsBounds: a dump is bounded at its end, and words that the program
// has survived do not count.
func TestLastWordsBounds(t *testing.T) {
	var w LastWords
	now := time.Unix(0, 0)
	w.Note(now, []byte("panic: big"))
	line := []byte(strings.Repeat("x", 1000))
	for range 100 {
		w.Note(now.Add(stale), line) // a long dump may take a while
	}
	said := w.Said(now.Add(stale))
	if said.Line != "panic: big" || len(said.Dump) > MaxDump || !strings.HasPrefix(said.Dump, "panic: big\nxxx") ||
		len(said.Dump)+said.Cut != len("panic: big\n")+100*1001 {
		t.Errorf("words %q, dump of %d bytes, cut %d", said.Line, len(said.Dump), said.Cut)
	}
	if said := w.Said(now.Add(stale + 1)); said != (Words{}) {
		t.Errorf("%v later: words %q, dump of %d bytes", stale, said.Line, len(said.Dump))
	}
}
