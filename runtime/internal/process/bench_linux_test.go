package process

import (
	"os"
	"testing"

	"github.com/coppice-go/coppice/runtime/internal/wall"
)

// BenchmarkStart is one start and end of /bin/true: as it is, with a nice value, and with its own
// number as LISTEN_PID.
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
	}{{"plain", 0, false}, {"nice", 1, false}, {"listens", 0, true}} {
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

// BenchmarkWalled is one start and end of /bin/true, without walls, within each, and within all.
func BenchmarkWalled(b *testing.B) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	for _, bb := range []struct {
		name  string
		rules wall.Rules
	}{
		{"none", wall.Rules{}},
		{"NoNewPrivileges", wall.Rules{NoNewPrivileges: true}},
		{"NoFiles", wall.Rules{NoFiles: true, Execute: []string{"/"}}},
		{"NoTCP", wall.Rules{NoTCP: true}},
		{"Scoped", wall.Rules{Scoped: true}},
		{"NoNetwork", wall.Rules{NoNetwork: true}},
		{"NoCapabilities", wall.Rules{NoCapabilities: true}},
		{"service", wall.Rules{Syscalls: "service"}},
		{"compute", wall.Rules{Syscalls: "compute"}},
		{"all", wall.Rules{NoFiles: true, Execute: []string{"/"}, NoTCP: true, Scoped: true, NoNetwork: true, NoCapabilities: true, Syscalls: "compute"}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			for b.Loop() {
				w, err := bb.rules.Build()
				if err != nil {
					b.Skip(err)
				}
				p, err := Start(Command{Path: "/bin/true", Args: []string{"true"}, Files: []*os.File{null, null, null}, Wall: w})
				if err != nil {
					b.Fatal(err)
				}
				<-p.Done()
				p.Close()
				w.Close()
			}
		})
	}
}
