package supervisor

import "github.com/coppice-go/coppice/supervisor/internal/rules"

// Note publishes a change inside a child's instance, which is no change of state by the
// rules: it asks the instance for its Info, publishes a snapshot with that, and then an
// event of kind [ChildNoted] with info. An empty id stands for the supervisor itself, and
// so does the id of a child that no longer exists. Note does not wait.
//
// With replaced, what runs in the instance has been replaced, and the child goes on as a
// further incarnation, whose life begins now. That is no restart: it counts in no budget.
func (s *Supervisor) Note(id string, info any, replaced bool) {
	s.inbox.post(message{do: func() { s.loop.note(id, info, replaced) }})
}

func (l *loop) note(id string, info any, replaced bool) {
	for _, child := range l.children {
		if child.spec.ID != id {
			continue
		}
		if replaced {
			child.began = l.now
			l.step(rules.Event{Kind: rules.Replaced, Key: child.key})
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
