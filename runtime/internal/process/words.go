package process

import (
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/wall"
)

const (
	// MaxDump is how many bytes are kept of the output of a dying program: the beginning, where a
	// Go program shows the goroutine at fault.
	MaxDump = 256 << 10

	// stale is how long a program may live after its last words. A program that printed "panic: …"
	// and then lived longer has survived the panic.
	stale = 10 * time.Second

	maxWords = 500 // bytes of Words.Line
)

// LastWords finds, in the standard error of a program, the line with the reason of its death, and
// keeps the lines after it: a goroutine dump, a traceback. It knows the messages of the runtimes of
// Go, Python, Rust and C++, and of glibc. It is safe for concurrent use.
type LastWords struct {
	mu   sync.Mutex
	line string    // the newest last words
	at   time.Time // when it came
	dump strings.Builder
	cut  int // bytes that did not fit in dump

	traceback bool // in a Python traceback, whose last line has the reason
	more      bool // the next line continues line
}

// Note takes the next line and reports whether it begins last words; a later line may begin new
// last words. It borrows the line until it returns.
func (w *LastWords) Note(now time.Time, line []byte) (begin bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := string(line)
	switch {
	case w.traceback && s != "" && s[0] != ' ':
		w.traceback = false
		w.line, w.at = clip(s), now
	case begins(s):
		begin = true
		w.dump.Reset()
		w.line, w.at, w.cut = clip(s), now, 0
		w.traceback = s == pythonTraceback
		w.more = strings.HasPrefix(s, "thread '") && strings.HasSuffix(s, ":")
	case w.line == "":
		return false
	case w.more: // Rust's message
		w.more = false
		w.line = clip(w.line + " " + s)
	case strings.HasPrefix(s, "[signal SIG"): // Go's runtime: the signal of the fault
		if signal, _, ok := strings.Cut(s, " code="); ok && !strings.Contains(w.line, "[signal ") {
			w.line = clip(w.line + " " + signal + "]")
		}
	case w.line == deniedCall: // Go's runtime: the register with the number
		reg, hex, _ := strings.Cut(s, " ")
		if n, err := strconv.ParseUint(strings.TrimSpace(hex), 0, 64); err == nil && reg == callRegister && wall.Name(n) != "" {
			w.line = clip(w.line + ": " + wall.Name(n))
		}
	case strings.HasPrefix(s, "  what():  "): // of a C++ exception
		w.line = clip(w.line + ": " + strings.TrimPrefix(s, "  what():  "))
	}
	if room := MaxDump - w.dump.Len(); len(s) < room {
		w.dump.WriteString(s)
		w.dump.WriteByte('\n')
	} else {
		w.cut += len(s) + 1
	}
	return begin
}

// Words is the output of a program about its death.
type Words struct {
	Line string // the line with the reason; "" if there is none
	Dump string // the output from that line on
	Cut  int    // bytes of the dump that were not kept
}

// Said returns the last words of a program that ended at the time ended.
func (w *LastWords) Said(ended time.Time) Words {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.line == "" || ended.Sub(w.at) > stale {
		return Words{}
	}
	return Words{w.line, w.dump.String(), w.cut}
}

// deniedCall is what Go's runtime prints when a filter denies a system call, and callRegister what
// it calls the register with the number of the call, in its dump.
const deniedCall = "SIGSYS: bad system call"

var callRegister = map[string]string{"amd64": "rax", "arm64": "r8"}[runtime.GOARCH]

const pythonTraceback = "Traceback (most recent call last):"

// begins reports whether line begins a program's message about its death.
func begins(line string) bool {
	for _, p := range [...]string{
		// Go's runtime. It prints a fatal signal as "SIGSEGV: segmentation violation", see below.
		"panic: ", "fatal error: ", "fatal: ", "unexpected fault address ",
		// glibc, when the heap is broken.
		"double free or corruption", "free(): ", "malloc(): ", "realloc(): ", "munmap_chunk(): ",
		"malloc_consolidate(): ", "corrupted ",
		"terminate called ", // C++
		pythonTraceback,
	} {
		if strings.HasPrefix(line, p) {
			return true
		}
	}
	switch {
	case strings.HasPrefix(line, "SIG"):
		name, text, ok := strings.Cut(line, ": ")
		return ok && text != "" && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == ""
	case strings.HasPrefix(line, "*** "): // "*** stack smashing detected ***: terminated"
		return strings.HasSuffix(line, "***: terminated")
	case strings.HasPrefix(line, "thread '"): // Rust
		return strings.Contains(line, "' panicked at ") || strings.Contains(line, ") panicked at ")
	case strings.HasPrefix(line, "=="): // "==1==ERROR: AddressSanitizer: …"
		return strings.Contains(line, "==ERROR: ")
	}
	return strings.Contains(line, ": Assertion `") && strings.HasSuffix(line, "' failed.") // assert(3)
}

func clip(line string) string {
	if len(line) > maxWords {
		return strings.ToValidUTF8(line[:maxWords], "") + "…"
	}
	return line
}
