package main

import (
	"os"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
)

// entry is a session as a store has it. Of two of one key the later counts: the
// one with the higher version, of two writers at once the one with the higher ID.
type entry struct {
	Key     string
	Value   string
	Version uint64
	Writer  int
}

func (e entry) later(than entry) bool {
	if e.Version != than.Version {
		return e.Version > than.Version
	}
	return e.Writer > than.Writer
}

// What a store is asked. It answers get and put with the entry that it has then.
type (
	get  struct{ Key string }
	put  struct{ Entry entry }
	dump struct{} // all entries; the answer is a []entry
	size struct{} // the answer is figures
)

// figures are of a store and the process that has it.
type figures struct{ Sessions, PID int }

func init() {
	actors.RegisterType[figures]("sessions.figures")
	actors.RegisterType[get]("sessions.get")
	actors.RegisterType[put]("sessions.put")
	actors.RegisterType[dump]("sessions.dump")
	actors.RegisterType[size]("sessions.size")
	actors.RegisterType[entry]("sessions.entry")
	actors.RegisterType[[]entry]("sessions.entries")
}

// store keeps sessions. It asks no other actor and so never waits.
type store struct{ entries map[string]entry }

func newStore() *store { return &store{make(map[string]entry)} }

func (s *store) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case get:
		ctx.Respond(s.entries[m.Key])
	case put:
		if m.Entry.later(s.entries[m.Entry.Key]) {
			s.entries[m.Entry.Key] = m.Entry
		}
		ctx.Respond(s.entries[m.Entry.Key])
	case dump:
		all := make([]entry, 0, len(s.entries))
		for _, e := range s.entries {
			all = append(all, e)
		}
		ctx.Respond(all)
	case size:
		ctx.Respond(figures{len(s.entries), os.Getpid()})
	}
}
