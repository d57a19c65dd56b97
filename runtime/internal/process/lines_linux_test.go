package process

import (
	"fmt"
	"slices"
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
				both = append(both, ReadLines(r, readSize, func([]byte, bool) {
					if tt.stuck {
						<-free
					}
				}))
			}
			finished := make(chan struct{})
			go func() { // ends with Finish
				defer close(finished)
				Finish(both...)
			}()
			select {
			case <-finished:
			case <-time.After(patience):
				t.Error("Finish waits for the end of the output")
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
	l := ReadLines(r, readSize, func(line []byte, _ bool) {
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

// TestReadLinesPieces: a line comes whole up to the bound, and beyond it in pieces that say so,
// each of whole runes.
func TestReadLinesPieces(t *testing.T) {
	const most = 3 * readSize
	long := strings.Repeat("é", most+1) // two bytes each
	for _, tt := range []struct {
		name, text string
		want       []string // a piece that is not the last ends with +
	}{
		{"lines", "a\n\nb", []string{"a", "", "b"}},
		{"beyond the reader's buffer", long[:most] + "\nb\n", []string{long[:most], "b"}},
		{"beyond the bound", "x" + long[:most] + "\nb\n", []string{"x" + long[:most-2] + "+", "é", "b"}},
		{"without an end", long[:2*most+2], []string{long[:most] + "+", long[:most] + "+", "é"}},
		{"no text", strings.Repeat("\x80", most+1), []string{strings.Repeat("\x80", most) + "+", "\x80"}},
	} {
		r, w, err := OutputPipe()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		l := ReadLines(r, most, func(line []byte, more bool) {
			s := string(line)
			if more {
				s += "+"
			}
			got = append(got, s)
		})
		if _, err := w.WriteString(tt.text); err != nil {
			t.Fatal(err)
		}
		w.Close()
		<-l.done
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %d pieces", tt.name, len(got))
		}
	}
}
