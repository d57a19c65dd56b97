package coppice

// usage is what a process uses.
type usage struct {
	memory int64 // that it costs, bytes; see ownMemory
	cpu    int64 // so far, ns
	files  int64 // open descriptors
}

// growing adds up, by name, how counts have grown of processes and sockets that come and go.
type growing struct {
	last map[uint64]int64 // at the last collection, by a number that is never used again
	sums map[string]int64 // by name
}

type counted struct {
	name string
	n    int64
}

// add adds the growth since the last collection to the sums. A count that is less began anew.
func (g *growing) add(now map[uint64]counted) map[string]int64 {
	last := g.last
	g.last = map[uint64]int64{}
	for number, is := range now {
		was := last[number]
		if is.n < was {
			was = 0
		}
		g.sums[is.name] += is.n - was
		g.last[number] = is.n
	}
	return g.sums
}
