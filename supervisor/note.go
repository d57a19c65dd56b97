package supervisor

// Note publishes a change inside a child's instance, which is no change of state by the
// rules: it asks the instance for its Info, publishes a snapshot with that, and then an
// event of kind [ChildNoted] with info. An empty id stands for the supervisor itself, and
// so does the id of a child that no longer exists. Note does not wait.
func (s *Supervisor) Note(id string, info any) {
	s.inbox.post(message{do: func() { s.loop.note(id, info) }})
}

func (l *loop) note(id string, info any) {
	for _, child := range l.children {
		if child.spec.ID != id {
			continue
		}
		if child.inst != nil {
			child.info = child.inst.Info()
			l.markDirty(child)
		}
		l.event(Event{Kind: ChildNoted, Path: child.path, Incarnation: l.incarnation(child), Info: info})
		return
	}
	l.event(Event{Kind: ChildNoted, Path: l.s.path, Info: info})
}
