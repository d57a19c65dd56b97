package coppice

import "fmt"

// What the master has open, at the least: counted in /proc/self/fd of a master at rest.
const (
	ownDescriptors     = 6 // standard input, output and error, two of Go's poller, the program's file
	childDescriptors   = 7 // of a worker, and of the listener process: pidfd, two pipes, four of its channel
	programDescriptors = 3 // of another program
	startDescriptors   = 4 // what a start has open for moments, more than what it leaves

	// workerDescriptors is what a worker takes with one connection: 17, and a few of its program's.
	workerDescriptors = 20
)

// leastDescriptors returns how many descriptors the master takes at the least when the tree
// is up.
func (n *node) leastDescriptors() int {
	sum := 0
	switch s := n.spec.(type) {
	case Pool:
		if s.Isolation == ProcessIsolation {
			sum = (s.size() + s.Spares) * childDescriptors
		}
	case Process:
		sum = programDescriptors
	}
	for _, c := range n.children {
		sum += c.leastDescriptors()
	}
	return sum
}

// checkDescriptors returns an error when the master may not have as many descriptors as the
// tree takes: no start could succeed, however long it waited.
func (cfg Config) checkDescriptors(root *node) error {
	need := root.leastDescriptors()
	if root.listens() && cfg.ListenerIsolation == ProcessIsolation {
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
