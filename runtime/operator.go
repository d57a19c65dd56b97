package coppice

import (
	"net/http"

	"github.com/coppice-go/coppice/runtime/internal/control"
)

// Events returns a reader of the events after a cursor, and of those to come; 0 stands before the
// first. The latest 2,048 events are kept. A reader may come again with the Cursor of the last
// event that it got, or with that of a Tree, and misses none that is kept:
//
//	for ev := range rt.Events(coppice.FromNow).All(ctx) {
//		if ev.Kind == coppice.ChildExited {
//			log.Print(ev)
//		}
//	}
func (rt *Runtime) Events(cursor uint64) *EventReader {
	if cursor == FromNow {
		cursor = rt.events.Last()
	}
	return &EventReader{rt.events, cursor}
}

// Crashes returns the latest crash reports, newest first: at most 32, and 2 MiB.
func (rt *Runtime) Crashes() []CrashReport { return rt.crashes.latest() }

// ControlHandler returns the endpoint that [Control] describes as a handler for a server of the
// program's own. It is read-only unless Writes is set; either way the server must ask who its
// clients are. It refuses requests of pages of another origin, and requests by names that are not
// among Hosts, which would let a foreign page use it by the browser of an operator. Its paths begin
// with /v1/:
//
//	mux.Handle("/v1/", rt.ControlHandler(coppice.ControlOptions{}))
func (rt *Runtime) ControlHandler(o ControlOptions) http.Handler {
	return control.Guard(control.Bounded(newControlHandler(rt, rt.operatedParts(), !o.Writes)), o.Hosts)
}
