package process

import (
	"fmt"
	"testing"
	"time"
)

// TestFinish: the end of a process is known soon although a descendant keeps both
// pipes, or nobody takes the lines.
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
