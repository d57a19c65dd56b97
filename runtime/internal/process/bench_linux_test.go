package process

import (
	"os"
	"testing"
)

// BenchmarkStart is one start and end of /bin/true: as it is, and stopped at its
// exec to get a nice value, or its own number as LISTEN_PID.
func BenchmarkStart(b *testing.B) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	for _, bb := range []struct {
		name string
		nice int
		pid  bool
	}{{"plain", 0, false}, {"settled", 1, false}, {"listens", 0, true}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p, err := Start(Command{Path: "/bin/true", Args: []string{"true"}, Files: []*os.File{null, null, null}, Nice: bb.nice, ListenPID: bb.pid})
				if err != nil {
					b.Fatal(err)
				}
				<-p.Done()
				p.Close()
			}
		})
	}
}
