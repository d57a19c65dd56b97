package actors

import "github.com/coppice-go/coppice/supervisor"

// endedProcesses keeps the exit reasons of the latest processes that have ended.
type endedProcesses struct {
	reasons map[string]supervisor.Reason
	order   []string
}

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
		g.order = append(g.order[:0], g.order[1:]...)
	}
}

func (g *endedProcesses) forget(address string) {
	if _, ok := g.reasons[address]; !ok {
		return
	}
	delete(g.reasons, address)
	for i, a := range g.order {
		if a == address {
			g.order = append(g.order[:i], g.order[i+1:]...)
			return
		}
	}
}

func (g *endedProcesses) find(address string) (supervisor.Reason, bool) {
	r, ok := g.reasons[address]
	return r, ok
}
