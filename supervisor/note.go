package supervisor

// Note publishes news of a child that is no change of state by the rules of this
// package: an event of kind [ChildNoted] with info, and, where the child's instance
// has an Info method, what that returns now in the snapshot, before the event. An
// empty id stands for the supervisor itself, and so does that of a child which is not
// there any more. It does not wait. It is for the packages that make children of other things,
// whose instances may change inside.
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
