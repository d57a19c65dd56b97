package actors

import (
	"slices"

	"github.com/coppice-go/coppice/supervisor"
)

// endedProcesses keeps the exit reasons of the latest processes that have ended. A child keeps
// those of which it was told while it lived; the master tells it of the others when it asks.
type endedProcesses struct {
	reasons map[string]supervisor.Reason
	order   []string
}

// maxEndedProcesses is documented at System.Monitor: at 10 ends a second it is a minute and a half.
const maxEndedProcesses = 1024

func (g *endedProcesses) add(address string, r supervisor.Reason) {
	if g.reasons == nil {
		g.reasons = make(map[string]supervisor.Reason)
	}
	if _, ok := g.reasons[address]; !ok {
		g.order = append(g.order, address)
	}
	g.reasons[address] = r
	if len(g.order) > maxEndedProcesses {
		delete(g.reasons, g.order[0])
		g.order = slices.Delete(g.order, 0, 1)
	}
}

func (g *endedProcesses) forget(address string) {
	if _, ok := g.reasons[address]; !ok {
		return
	}
	delete(g.reasons, address)
	g.order = slices.DeleteFunc(g.order, func(a string) bool { return a == address })
}

func (g *endedProcesses) find(address string) (supervisor.Reason, bool) {
	r, ok := g.reasons[address]
	return r, ok
}
