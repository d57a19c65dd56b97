package listen

import (
	"testing"

	"github.com/coppice-go/coppice/fdipc"
)

// BenchmarkTraceOffInWorker: one op is every call of tracing that one connection makes in the
// worker, with tracing off.
func BenchmarkTraceOffInWorker(b *testing.B) {
	l := &queuedListener{ls: &Listeners{}}
	h := &fdipc.Handle{}
	b.ReportAllocs()
	for b.Loop() {
		claim := l.startClaim(h)
		r := connRecord{span: claim.Serve()}
		claim.End()
		r.span.End()
	}
}
