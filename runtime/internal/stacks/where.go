package stacks

import (
	"regexp"
	"strings"
	"sync"
)

// maxFrames bounds the frames of OfMain.
const maxFrames = 4

// Compiled when the first process hangs.
var (
	arguments = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\(([^()]*|\{[^()]*\})*\)$`) }) // of the call of a frame
	addresses = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(` (\+0x|fp=|sp=|pc=|gp=0x|m=)[^ \]\n]*`) })
)

// OfMain returns where the first goroutine is, by the stacks that a Go program has printed: its
// state, the call of the standard library that it is in, if it is in one, and the frames of the
// program that have led there, innermost first. It returns nil if dump has no first goroutine.
// Addresses are left out, and so is what has called the worker function.
func OfMain(dump string) []string {
	_, rest, ok := strings.Cut("\n"+dump, "\ngoroutine 1 ")
	if !ok {
		return nil
	}
	section, _, _ := strings.Cut(rest, "\n\n")
	lines := strings.Split(strings.TrimSpace(addresses().ReplaceAllString(" "+section, "")), "\n")
	where := []string{"goroutine 1 " + lines[0]}
	called := "" // the frame that the program's innermost frame has called
	for i := 1; i < len(lines) && len(where) <= 2*maxFrames; i++ {
		frame := arguments().ReplaceAllString(lines[i], "(...)")
		switch {
		case strings.HasPrefix(frame, "\t"), strings.HasPrefix(frame, "created by "):
			continue
		case strings.HasPrefix(frame, "github.com/coppice-go/coppice/runtime"):
			return where
		case strings.HasPrefix(frame, "runtime."):
			continue
		case standard(frame):
			called = frame
			continue
		}
		if called != "" && len(where) == 1 {
			where = append(where, called)
		}
		where = append(where, frame)
		if i+1 < len(lines) && strings.HasPrefix(lines[i+1], "\t") {
			where = append(where, lines[i+1])
		}
	}
	return where
}

// standard reports whether a frame is of the standard library.
func standard(frame string) bool {
	first, _, _ := strings.Cut(frame, "/")
	return !strings.HasPrefix(frame, "main.") && (first == frame || !strings.Contains(first, "."))
}
