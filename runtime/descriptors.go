package coppice

import "fmt"

// The least number of descriptors that the master has open, counted in /proc/self/fd of a master at
// rest.
const (
	ownDescriptors     = 7 // standard input, output and error, two of Go's poller, the program's file and directory
	childDescriptors   = 8 // of a worker, and of the listener process: pidfd, two pipes, five of its channel
	programDescriptors = 3 // of another program
	startDescriptors   = 4 // what a start has open briefly, beyond what it keeps

	// workerDescriptors is what a worker with one connection needs: 17, and a few for its program.
	workerDescriptors = 20
)

// leastDescriptors returns how many descriptors the master needs at least when the tree is up.
func (n *node) leastDescriptors() int {
	sum := 0
	switch s := n.spec.(type) {
	case Pool:
		if s.Command != nil {
			sum = (s.size() + s.Spares) * (programDescriptors + len(s.Listeners))
		} else if s.Isolation == ProcessIsolation {
			sum = (s.size() + s.Spares) * childDescriptors
		}
	case Process:
		sum = programDescriptors
	}
	for _, c := range n.children() {
		sum += c.leastDescriptors()
	}
	return sum
}

// checkDescriptors returns an error when the master may not have as many descriptors as the tree of
// n needs, with a listener process as listener says: no start could succeed, however long it
// waited.
func (n *node) checkDescriptors(listener Isolation) error {
	need := n.leastDescriptors()
	if n.listens() && listener == ProcessIsolation {
		need += childDescriptors
	}
	if need == 0 {
		return nil // it starts no process
	}
	need += ownDescriptors + startDescriptors
	if limit := fileLimit(); limit < need {
		return &InvalidError{"", "RLIMIT_NOFILE", limit, fmt.Sprintf("the master of this tree takes %d descriptors at the least, and one for each listener (ulimit -n, LimitNOFILE= of systemd)", need)}
	}
	return nil
}
