package supervisor

// Note publishes news of a child that is no change of state by the rules of this
// package: an event of kind [ChildNoted] with info, and, where the child's instance
// has an Info method, what that returns now in the snapshot, before the event. An
// empty id stands for the supervisor itself, and so does that of a child which is not
// there any more. It does not wait. It is for the packages that make children of other things,
// whose instances may change inside.
func (s *Supervisor) Note(id string, info any) {
	s.box.post(message{do: func() { s.loop.note(id, info) }})
}

func (l *loop) note(id string, info any) {
	for _, k := range l.kids {
		if k.spec.ID != id {
			continue
		}
		if i, ok := k.inst.(informer); ok {
			k.info = i.Info()
			l.touch(k)
		}
		l.event(Event{Kind: ChildNoted, Path: k.path, Incarnation: l.inc(k), Info: info})
		return
	}
	l.event(Event{Kind: ChildNoted, Path: l.s.path, Info: info})
}
