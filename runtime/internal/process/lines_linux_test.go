package process

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestFinish: Finish returns soon although a descendant keeps both pipes, or write takes no lines.
func TestFinish(t *testing.T) {
	for _, tt := range []struct {
		name  string
		stuck bool
	}{{"a descendant has the pipes", false}, {"nobody takes the lines", true}} {
		t.Run(tt.name, func(t *testing.T) {
			free := make(chan struct{})
			var both []*Lines
			for range 2 {
				r, w, err := OutputPipe()
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { w.Close() })
				fmt.Fprintln(w, "a line")
				both = append(both, ReadLines(r, func([]byte) {
					if tt.stuck {
						<-free
					}
				}))
			}
			began := time.Now()
			Finish(both...)
			if took := time.Since(began); took > 4*Linger {
				t.Errorf("took %v", took)
			}
			close(free)
			for _, l := range both {
				<-l.done
			}
		})
	}
}

// TestFinishReadsWhatIsThere: the output of a process before its end is read, however late write
// takes the earlier lines, while a descendant has the pipe.
func TestFinishReadsWhatIsThere(t *testing.T) {
	r, w, err := OutputPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	const lines, length = 40, 1000 // more than the reader has at once, less than a pipe holds
	for range lines {
		fmt.Fprintln(w, strings.Repeat("x", length-1))
	}
	taken, free := 0, make(chan struct{})
	l := ReadLines(r, func(line []byte) {
		<-free
		if len(line) != length-1 {
			t.Errorf("a line of %d bytes", len(line))
		}
		taken++
	})
	Finish(l)
	close(free)
	<-l.done
	if taken != lines {
		t.Errorf("%d lines, want %d", taken, lines)
	}
}
