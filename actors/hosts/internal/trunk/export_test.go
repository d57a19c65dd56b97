package trunk

// Memory returns how many bytes the frames take that wait for the lane's sink.
func (l *Lane) Memory() (n int) {
	l.trunk.mu.Lock()
	defer l.trunk.mu.Unlock()
	for i := range l.flows {
		for _, it := range l.flows[i].queue {
			n += cap(it.raw) + cap(it.frame.Payload)
		}
	}
	return n
}
